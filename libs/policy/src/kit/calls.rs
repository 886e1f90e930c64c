//! Who calls whom, read off the syntax: the interpreter does not survive rules that call themselves, and what it
//! runs here may not be compiled, as a policy is.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, Module, Query, Ref, Rule, RuleBody, RuleHead};

/// The names of a path that is written out: `data.a["b"]`.
pub(super) fn path(of: &Expr) -> Option<Vec<String>> {
    match of {
        Expr::Var { span, .. } => Some(vec![span.text().to_owned()]),
        Expr::RefDot { refr, field, .. } => {
            let mut names = path(refr)?;
            names.push(field.0.text().to_owned());
            Some(names)
        }
        Expr::RefBrack { refr, index, .. } => {
            let Expr::String { value, .. } = &**index else {
                return None;
            };
            let mut names = path(refr)?;
            names.push(value.as_string().ok()?.to_string());
            Some(names)
        }
        _ => None,
    }
}

/// A path without `data.`.
type Path = Vec<String>;

/// A circle of rules, each calling the next.
pub(super) fn circle(modules: &[Ref<Module>]) -> Option<Vec<String>> {
    let mut calls: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
    for module in modules {
        for rule in &module.policy {
            let mut names = Names {
                package: package(module),
                imports: imports(module),
                local: BTreeSet::new(),
                used: BTreeSet::new(),
            };
            let mut own = names.package.clone();
            own.extend(head(rule));
            names.rule(rule);
            let Names { used, .. } = names;
            calls.entry(own).or_default().extend(used);
        }
    }
    let rules: Vec<Path> = calls.keys().cloned().collect();
    let calls = calls.into_iter().map(|(rule, used)| {
        let called = rules.iter().filter(|rule| {
            let is_meant = |used: &Path| rule.starts_with(used) || used.starts_with(rule);
            used.iter().any(is_meant)
        });
        (rule, called.cloned().collect())
    });
    let calls: BTreeMap<Path, Vec<Path>> = calls.collect();
    let mut done = BTreeSet::new();
    let found = rules
        .iter()
        .find_map(|rule| follow(rule, &calls, &mut done));
    found.map(|circle| circle.iter().map(|rule| rule.join(".")).collect())
}

/// Follows the calls from a rule, without a stack that a long chain would exhaust.
fn follow(
    from: &Path,
    calls: &BTreeMap<Path, Vec<Path>>,
    done: &mut BTreeSet<Path>,
) -> Option<Vec<Path>> {
    let mut way: Vec<(&Path, usize)> = vec![(from, 0)];
    while let Some((rule, next)) = way.last_mut() {
        let rule: &Path = rule;
        let called = calls.get(rule).and_then(|called| called.get(*next));
        *next += 1;
        let Some(called) = called else {
            done.insert(rule.clone());
            way.pop();
            continue;
        };
        if let Some(at) = way.iter().position(|(on_way, _)| *on_way == called) {
            let circle = way.get(at..).unwrap_or_default();
            let circle = circle.iter().map(|(rule, _)| (*rule).clone());
            return Some(circle.chain([called.clone()]).collect());
        }
        if !done.contains(called) {
            way.push((called, 0));
        }
    }
    None
}

fn package(module: &Module) -> Path {
    path(&module.package.refr).unwrap_or_default()
}

/// What imports stand for.
fn imports(module: &Module) -> BTreeMap<String, Path> {
    let imports = module.imports.iter().filter_map(|import| {
        let path = path(&import.refr)?;
        let (first, rest) = path.split_first()?;
        let name = match &import.r#as {
            Some(name) => name.text().to_owned(),
            None => path.last()?.clone(),
        };
        (first == "data").then(|| (name, rest.to_vec()))
    });
    imports.collect()
}

/// What a path in a module stands for, without `data.`.
pub(super) fn resolve(module: &Module, path: &[String]) -> Option<Path> {
    let (first, rest) = path.split_first()?;
    Some(match (first.as_str(), imports(module).get(first)) {
        ("input", _) => return None,
        ("data", _) => rest.to_vec(),
        (_, Some(import)) => [import, rest].concat(),
        (_, None) => [&package(module), path].concat(),
    })
}

/// The path of a rule in its package, as far as it is written out.
fn head(rule: &Rule) -> Path {
    let refr = match rule {
        Rule::Spec {
            head:
                RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }
        | Rule::Default { refr, .. } => refr,
    };
    static_path(refr)
}

/// The names that a path begins with, as far as they are written out.
fn static_path(of: &Expr) -> Path {
    let mut of = of;
    loop {
        if let Some(path) = path(of) {
            return path;
        }
        match of {
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => of = refr,
            _ => return Path::new(),
        }
    }
}

/// The names that a rule uses.
struct Names {
    package: Path,
    imports: BTreeMap<String, Path>,
    /// Its own variables, which are no rules.
    local: BTreeSet<String>,
    used: BTreeSet<Path>,
}

impl Names {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, .. } => self.expression(value),
            Rule::Spec { head, bodies, .. } => {
                for RuleBody { assign, query, .. } in bodies {
                    self.query(query);
                    if let Some(assign) = assign {
                        self.expression(&assign.value);
                    }
                }
                match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        self.indices(refr);
                        if let Some(assign) = assign {
                            self.expression(&assign.value);
                        }
                    }
                    RuleHead::Set { refr, key, .. } => {
                        self.indices(refr);
                        if let Some(key) = key {
                            self.expression(key);
                        }
                    }
                    RuleHead::Func { args, assign, .. } => {
                        args.iter().for_each(|arg| self.own(arg));
                        if let Some(assign) = assign {
                            self.expression(&assign.value);
                        }
                    }
                }
            }
        }
        let Self { local, used, .. } = self;
        let package = self.package.len();
        // A name of its own hides the rule of that name.
        used.retain(|path| {
            path.len() != package + 1 || path.last().is_none_or(|name| !local.contains(name))
        });
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    let vars = vars.iter().map(|var| var.text().to_owned());
                    self.local.extend(vars);
                }
                Literal::SomeIn {
                    key,
                    value,
                    collection,
                    ..
                } => {
                    key.iter().for_each(|key| self.own(key));
                    self.own(value);
                    self.expression(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                    self.expression(expr);
                }
                Literal::Every {
                    key,
                    value,
                    domain,
                    query,
                    ..
                } => {
                    self.local
                        .extend(key.iter().map(|key| key.text().to_owned()));
                    self.local.insert(value.text().to_owned());
                    self.expression(domain);
                    self.query(query);
                }
            }
            for modifier in &statement.with_mods {
                self.expression(&modifier.r#as);
            }
        }
    }

    /// Variables that get their values here.
    fn own(&mut self, pattern: &Expr) {
        match pattern {
            Expr::Var { span, .. } => {
                self.local.insert(span.text().to_owned());
            }
            Expr::Array { items, .. } => items.iter().for_each(|item| self.own(item)),
            Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| self.own(value)),
            other => self.expression(other),
        }
    }

    /// What stands in the brackets of a path.
    fn indices(&mut self, of: &Expr) {
        match of {
            Expr::RefDot { refr, .. } => self.indices(refr),
            Expr::RefBrack { refr, index, .. } => {
                self.indices(refr);
                self.expression(index);
            }
            Expr::Var { .. } => {}
            other => self.expression(other),
        }
    }

    fn uses(&mut self, of: &Expr) {
        let path = static_path(of);
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let path = match (first.as_str(), self.imports.get(first)) {
            ("input", _) => return,
            ("data", _) => rest.to_vec(),
            (_, Some(import)) => [import, rest].concat(),
            (_, None) => [&self.package, &path[..1]].concat(),
        };
        self.used.insert(path);
    }

    fn expression(&mut self, of: &Expr) {
        match of {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } => self.uses(of),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                self.uses(of);
                self.indices(of);
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().for_each(|item| self.expression(item));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expression(key);
                    self.expression(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.query(query);
                self.expression(term);
            }
            Expr::ObjectCompr {
                key, value, query, ..
            } => {
                self.query(query);
                self.expression(key);
                self.expression(value);
            }
            Expr::Call { fcn, params, .. } => {
                self.uses(fcn);
                params.iter().for_each(|param| self.expression(param));
            }
            Expr::UnaryExpr { expr, .. } => self.expression(expr),
            Expr::AssignExpr {
                op: AssignOp::ColEq,
                lhs,
                rhs,
                ..
            } => {
                self.own(lhs);
                self.expression(rhs);
            }
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expression(lhs);
                self.expression(rhs);
            }
            Expr::Membership {
                key,
                value,
                collection,
                ..
            } => {
                key.iter().for_each(|key| self.expression(key));
                self.expression(value);
                self.expression(collection);
            }
        }
    }
}
