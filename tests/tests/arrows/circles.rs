//! Circles among the modules of a crate, read off their sources: a module uses another if its code has a
//! path into it. Modules with the same parent are compared; a module and its parent may use each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A path in a crate, by the names from the crate's root on. The root itself has none.
type Names = Vec<String>;

/// The modules of a crate that are files, each with the paths in its code.
struct Modules(BTreeMap<Names, Vec<Names>>);

/// The circles in a crate, each as the path of the parent and the names of the modules.
pub(crate) fn circles(src: &Path) -> BTreeSet<String> {
    let modules = Modules::read(src);
    let mut circles = BTreeSet::new();
    for (parent, uses) in modules.uses() {
        for from in uses.keys() {
            let circle: Vec<_> = reached(&uses, from)
                .into_iter()
                .filter(|to| reached(&uses, to).contains(from.as_str()))
                .collect();
            if !circle.is_empty() {
                let parent = [&["crate".to_owned()], &*parent].concat();
                circles.insert(format!("{}: {}", parent.join("::"), circle.join(", ")));
            }
        }
    }
    circles
}

type Uses = BTreeMap<String, BTreeSet<String>>;

/// The modules that a module uses, and that those use in turn.
fn reached<'u>(uses: &'u Uses, from: &'u str) -> BTreeSet<&'u str> {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(name) = ahead.pop() {
        let next = uses.get(name).into_iter().flatten();
        ahead.extend(next.map(String::as_str).filter(|next| seen.insert(*next)));
    }
    seen
}

impl Modules {
    fn read(src: &Path) -> Self {
        let mut sources = BTreeMap::<Names, String>::new();
        let mut folders = vec![(src.to_owned(), Names::new())];
        while let Some((folder, parent)) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                let child = join(&parent, name);
                if path.is_dir() {
                    folders.push((path, child));
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let is_parent = ["mod", "lib", "main"].contains(&name);
                    let module = if is_parent { parent.clone() } else { child };
                    let source = fs::read_to_string(path).unwrap();
                    sources.entry(module).or_default().push_str(&source);
                }
            }
        }
        let modules = sources.iter().map(|(module, source)| {
            let is_child = |name: &str| sources.contains_key(&join(module, name));
            (module.clone(), paths(module, is_child, &tokens(source)))
        });
        Self(modules.collect())
    }

    /// For each parent, which of its modules uses which others.
    fn uses(&self) -> BTreeMap<Names, Uses> {
        let mut uses = BTreeMap::<Names, Uses>::new();
        for (module, paths) in &self.0 {
            for path in paths {
                let used = self.module_of(path);
                let pairs = module.iter().zip(&used);
                let shared = pairs.take_while(|(one, other)| one == other).count();
                if let (Some(from), Some(to)) = (module.get(shared), used.get(shared)) {
                    let siblings = uses.entry(module[..shared].to_owned()).or_default();
                    siblings.entry(from.clone()).or_default().insert(to.clone());
                }
            }
        }
        uses
    }

    /// The module that a path leads into. If a parent re-exports a name, the path leads into the child that
    /// has it.
    fn module_of(&self, path: &[String]) -> Names {
        let mut module = Names::new();
        for name in path {
            let child = join(&module, name);
            if !self.0.contains_key(&child) {
                let depth = module.len() + 1;
                let mut imported = self.0.get(&module).into_iter().flatten();
                let from_child = imported.find(|import| {
                    import.len() > depth
                        && import.starts_with(&module)
                        && import.last() == Some(name)
                });
                return from_child.map_or(module, |import| import[..depth].to_owned());
            }
            module = child;
        }
        module
    }
}

fn join(parent: &[String], name: &str) -> Names {
    [parent, &[name.to_owned()]].concat()
}

/// The identifiers and signs of a source, without comments and without the unit tests at its end.
fn tokens(source: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut tokens = Vec::new();
    for line in source.lines() {
        let mut rest = line.split("//").next().unwrap().trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(&rest[..length]);
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// All paths that start with `crate`, `super`, `self` or, after `use`, with the name of a child.
fn paths(module: &Names, is_child: impl Fn(&str) -> bool, tokens: &[&str]) -> Vec<Names> {
    let mut found = Vec::new();
    for n in 0..tokens.len() {
        if n > 0 && tokens[n - 1] == "::" {
            continue;
        }
        let mut start = module.clone();
        let mut rest = &tokens[n..];
        match rest {
            ["use", name, ..] if is_child(name) => rest = &rest[1..],
            ["crate", "::", ..] => start.clear(),
            ["super" | "self", "::", ..] => {}
            _ => continue,
        }
        while let [first @ ("crate" | "super" | "self"), "::", after @ ..] = rest {
            if *first == "super" {
                start.pop();
            }
            rest = after;
        }
        expand(&start, rest, &mut found);
    }
    found
}

/// Adds the paths that a path with braces stands for; returns the tokens after it.
fn expand<'t>(start: &Names, tokens: &'t [&'t str], found: &mut Vec<Names>) -> &'t [&'t str] {
    match tokens {
        ["{", rest @ ..] => {
            let mut rest = rest;
            while let [first, after @ ..] = rest {
                rest = match *first {
                    "}" => return after,
                    "," => after,
                    _ => expand(start, rest, found),
                };
            }
            rest
        }
        [name, "::", rest @ ..] => expand(&join(start, name), rest, found),
        [name, "as", _, rest @ ..] | [name, rest @ ..] => {
            found.push(join(start, name));
            rest
        }
        [] => tokens,
    }
}

#[test]
fn circles_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, source: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, source).unwrap();
    };
    write(
        "lib.rs",
        "mod a;\nmod b;\nmod c;\npub use a::{self as x, A};\n",
    );
    write("a.rs", "use crate::{c::{C, D as E}, std};\n");
    write("b/mod.rs", "mod d;\nmod e;\nuse self::d::D;\n// crate::c\n");
    write("b/d.rs", "fn d() { super::e::f() }\n");
    write(
        "b/e.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::b::d::D;\n}\n",
    );
    write("c.rs", "struct C(crate::b::B);\n");
    assert_eq!(circles(folder.path()), BTreeSet::new());
    write("b/e.rs", "use super::D;\n");
    write("c.rs", "struct C(crate::A);\n");
    let found = ["crate::b: d, e", "crate: a, c"].map(str::to_owned);
    assert_eq!(circles(folder.path()), BTreeSet::from(found));
}
