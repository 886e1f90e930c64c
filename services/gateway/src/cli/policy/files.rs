//! Policies, their data and their inputs as files.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use stategate_model::{Object, json};
use stategate_policy::{Module, kit, policies_in};

use crate::cli::failure::{Failure, words};

/// Most bytes of a file.
const BYTES: u64 = 4 << 20;
/// Most directories below one another.
const DEPTH: usize = 16;
/// The data document that stands beside a policy.
const DATA: &str = "data.json";
/// How the name of a file of tests ends.
const TESTS: &str = "_test.rego";

/// A policy with its tests.
pub(super) struct Unit {
    pub(super) policies: Vec<Module>,
    pub(super) tests: Vec<Module>,
    /// The data document beside them.
    pub(super) data: Option<PathBuf>,
}

/// The files of a policy: those named, and every *.rego but tests of the directories named.
pub(super) fn policy(paths: &[PathBuf]) -> Result<Vec<Module>, Failure> {
    let mut modules = Vec::new();
    for path in paths {
        if !path.is_dir() {
            modules.push(module(path)?);
            continue;
        }
        let files = policies_in(path).map_err(|error| Failure::usage(error.to_string()))?;
        for file in files {
            modules.push(module(&file)?);
        }
    }
    Ok(modules)
}

/// A data document.
pub(super) fn data(path: &Path) -> Result<Object, Failure> {
    object(path)
}

/// A JSON object; `-` is stdin.
pub(super) fn object(path: &Path) -> Result<Object, Failure> {
    let text = text(path)?;
    json::parse_object(&text)
        .map_err(|problem| Failure::usage(format!("{} {problem}", path.display())))
}

/// Every policy with tests in and below a directory, or that of one file of tests.
pub(super) fn units(path: &Path) -> Result<Vec<Unit>, Failure> {
    let mut found = Vec::new();
    if path.is_dir() {
        below(path, DEPTH, &mut found)?;
    } else if is_test(path) {
        let beside = path
            .parent()
            .filter(|beside| !beside.as_os_str().is_empty());
        let files = rego(beside.unwrap_or(Path::new(".")))?;
        let name = path.file_name();
        found = of_directory(&files, &|file| file.file_name() == name)?;
    } else {
        return Err(Failure::usage(format!(
            "{} is neither a directory nor a file *{TESTS}",
            path.display()
        )));
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "{} holds no tests: they are rules `test_…` in files *{TESTS}",
            path.display()
        )));
    }
    Ok(found)
}

fn below(directory: &Path, depth: usize, found: &mut Vec<Unit>) -> Result<(), Failure> {
    found.extend(of_directory(&rego(directory)?, &|_| true)?);
    if depth == 0 {
        return Ok(());
    }
    for path in entries(directory)? {
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // A link may lead back up.
        if path.is_dir() && !path.is_symlink() && !is_hidden {
            below(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The policies of a directory with those of its tests that are wanted.
///
/// Where several files define `allow`, each with a file of tests of its name, they are policies of their own:
/// `policy_test.rego` is run with policy.rego and without response.rego.
fn of_directory(
    files: &[PathBuf],
    is_wanted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Unit>, Failure> {
    let has_tests = |path: &Path| files.contains(&tests_of(path));
    let (tests, policies): (Vec<_>, Vec<_>) = files.iter().partition(|path| is_test(path));
    let tests: Vec<_> = tests.into_iter().filter(|path| is_wanted(path)).collect();
    if tests.is_empty() {
        return Ok(Vec::new());
    }
    let policies = policies.into_iter().map(|path| {
        let module = module(path)?;
        let is_own = kit::defines_allow(&module) && has_tests(path);
        Ok((path, module, is_own))
    });
    let policies = policies.collect::<Result<Vec<_>, Failure>>()?;
    let units = tests.into_iter().map(|test| {
        let of = policies.iter().find(|(path, ..)| tests_of(path) == *test);
        let is_among_own = of.is_some_and(|(.., is_own)| *is_own);
        let belongs = |path: &Path, is_own: bool| {
            !is_own || !is_among_own || of.is_some_and(|(of, ..)| of.as_path() == path)
        };
        let policies = policies
            .iter()
            .filter(|(path, _, is_own)| belongs(path, *is_own));
        let data = test.with_file_name(DATA);
        Ok(Unit {
            policies: policies.map(|(_, module, _)| module.clone()).collect(),
            tests: vec![module(test)?],
            data: data.is_file().then_some(data),
        })
    });
    units.collect()
}

/// What the file of tests of a policy is called.
fn tests_of(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(TESTS);
    path.with_file_name(name)
}

fn is_test(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().ends_with(TESTS.as_bytes()))
}

/// The files *.rego of a directory, by name.
fn rego(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = entries(directory)?;
    files.retain(|path| path.extension().is_some_and(|end| end == "rego") && path.is_file());
    Ok(files)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<Result<Vec<_>, _>>()
    });
    let mut entries = entries.map_err(|error| unreadable(directory, &error))?;
    entries.sort();
    Ok(entries)
}

fn module(path: &Path) -> Result<Module, Failure> {
    Ok(Module {
        name: path.display().to_string(),
        text: text(path)?,
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| unreadable(path, &error);
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().take(BYTES + 1).read_to_end(&mut bytes)
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(BYTES + 1).read_to_end(&mut bytes)
    }
    .map_err(failed)?;
    let name = path.display();
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES) {
        return Err(Failure::usage(format!(
            "{name} is larger than {BYTES} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{name} is not UTF-8")))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {}", path.display(), words(error)))
}
