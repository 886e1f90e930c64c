//! References between code and documents: every section of the contract and of the design, every
//! invariant and every file that a text refers to is there.
//!
//! The section sign is written as an escape here, so that this file refers to nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const CONTRACT: &str = "docs/contract.md";
const DESIGN: &str = "docs/design.md";
/// How texts name the documents that have sections.
const DOCUMENTS: [(&str, &str); 2] = [("contract", CONTRACT), ("design", DESIGN)];
const SECTION: char = '\u{a7}';
/// Endings of files that are read as text.
const TEXTS: [&str; 6] = ["md", "proto", "rs", "sh", "sql", "toml"];
/// References there must at least be, or they were not found.
const LEAST_SECTIONS: usize = 40;
const LEAST_INVARIANTS: usize = 10;
const LEAST_LINKS: usize = 25;

/// A file of the repository.
struct Text {
    /// Its path within the repository, with `/`.
    name: String,
    content: String,
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// Every text that is in the repository, or would be with the next commit.
fn texts() -> Vec<Text> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output();
    let names = match listed {
        Ok(listed) if listed.status.success() => {
            let names = String::from_utf8(listed.stdout).unwrap();
            names.split_terminator('\0').map(str::to_owned).collect()
        }
        // An archive of the sources, not a clone.
        _ => names_below(&root()),
    };
    let texts = names.into_iter().filter_map(|name| {
        let path = root().join(&name);
        let ending = path.extension()?.to_str()?;
        let is_text = TEXTS.contains(&ending) && path.is_file();
        is_text.then(|| Text {
            content: fs::read_to_string(&path).unwrap(),
            name,
        })
    });
    texts.collect()
}

fn names_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            // What was built, and what was installed for the tests.
            let name = entry.file_name();
            let is_ours = name != "target" && !name.to_string_lossy().starts_with('.');
            if kind.is_dir() && is_ours {
                ahead.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The numbers of a document's sections: `## 3. Writes`.
fn sections(document: &str) -> BTreeSet<u32> {
    let headings = document.lines().filter_map(|line| line.strip_prefix("## "));
    let numbers = headings.filter_map(|heading| heading.split_once(". ")?.0.parse().ok());
    numbers.collect()
}

/// A reference to a section.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    /// The document it names; `None` if it names none.
    document: Option<&'a str>,
    section: u32,
}

/// The number that a text begins with, and the rest.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// The references in a line. One sign has one number after it, two have a list.
fn references(line: &str) -> Vec<Reference<'static>> {
    let mut found: Vec<Reference<'static>> = Vec::new();
    let mut at = 0;
    while let Some(next) = line[at..].find(SECTION) {
        let before = line[..at + next].trim_end_matches([' ', '(']);
        let rest = line[at + next..].trim_start_matches(SECTION);
        let signs = (line.len() - at - next - rest.len()) / SECTION.len_utf8();
        let named = DOCUMENTS
            .iter()
            .find(|(word, _)| before.ends_with(word))
            .map(|(_, document)| *document);
        // A second one after a comma is of the document that the first named.
        let named = match found.last() {
            Some(last) if before.ends_with(',') => last.document,
            _ => named,
        };
        let mut list = rest;
        while let Some((section, after)) = number(list) {
            found.push(Reference {
                document: named,
                section,
            });
            match after.strip_prefix(", ") {
                Some(more) if signs > 1 => list = more,
                _ => break,
            }
        }
        at = line.len() - rest.len();
    }
    found
}

/// The invariants in a line that speaks of them: `invariant I12`, `invariants I1 to I3`,
/// `invariants I4, I5 and I7`.
fn invariants(line: &str) -> BTreeSet<u32> {
    let Some((_, after)) = line.split_once("nvariant") else {
        return BTreeSet::new();
    };
    let words: Vec<&str> = after.split([' ', ',', '(', ')', '.', ':']).collect();
    let numbers = words.iter().map(|word| {
        let digits = word.strip_prefix('I')?;
        digits.parse::<u32>().ok()
    });
    let numbers: Vec<Option<u32>> = numbers.collect();
    let mut found: BTreeSet<u32> = numbers.iter().flatten().copied().collect();
    for (at, word) in words.iter().enumerate() {
        let from = at.checked_sub(1).and_then(|before| numbers[before]);
        let to = numbers.get(at + 1).copied().flatten();
        if let ("to", Some(from), Some(to)) = (*word, from, to) {
            found.extend(from..=to);
        }
    }
    found
}

#[test]
fn references_are_read() {
    let sign = SECTION;
    let of = |document, sections: &[u32]| -> Vec<Reference<'static>> {
        let sections = sections.iter().map(|section| Reference {
            document,
            section: *section,
        });
        sections.collect()
    };
    for (line, expected) in [
        (
            format!("(contract {sign}{sign}1, 4, 12)."),
            of(Some(CONTRACT), &[1, 4, 12]),
        ),
        (
            format!("contract {sign}4, {sign}8"),
            of(Some(CONTRACT), &[4, 8]),
        ),
        (
            format!("the contract ({sign}4) says 5, 6"),
            of(Some(CONTRACT), &[4]),
        ),
        (format!("design {sign}11."), of(Some(DESIGN), &[11])),
        (format!("quality {sign}4"), of(None, &[4])),
        ("contract 4".to_owned(), of(None, &[])),
    ] {
        assert_eq!(references(&line), expected, "{line}");
    }
    for (line, expected) in [
        ("(invariant I12).", &[12][..]),
        ("(invariants I1 to I3).", &[1, 2, 3]),
        ("(invariants I4, I5 and I7).", &[4, 5, 7]),
        ("Invariants and where they live", &[]),
        ("I12 alone", &[]),
    ] {
        let expected = expected.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(invariants(line), expected, "{line}");
    }
}

#[test]
fn every_section_referred_to_is_there() {
    let there: BTreeMap<&str, BTreeSet<u32>> = DOCUMENTS
        .iter()
        .map(|(_, name)| (*name, sections(&document(name))))
        .collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for text in texts() {
        // Within a document, a section without a name is one of its own.
        let own = DOCUMENTS.iter().find(|(_, name)| text.name == *name);
        for (line, number) in text.content.lines().zip(1..) {
            for reference in references(line) {
                checked += 1;
                let section = reference.section;
                let place = format!("{}:{number}: {SECTION}{section}", text.name);
                match reference.document.or(own.map(|(_, name)| *name)) {
                    Some(document) if there[document].contains(&section) => {}
                    Some(document) => wrong.push(format!("{place} is not in {document}")),
                    None => wrong.push(format!(
                        "{place} names no document; write `contract {SECTION}…` or `design {SECTION}…`"
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{checked} references to sections were followed");
    assert!(checked >= LEAST_SECTIONS, "only {checked} were found");
}

#[test]
fn every_invariant_referred_to_is_there() {
    let rows = document(DESIGN);
    let ids = rows.lines().filter_map(|line| {
        let id = line.strip_prefix("| I")?.split(' ').next()?;
        id.parse().ok()
    });
    let there: BTreeSet<u32> = ids.collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for text in texts() {
        if text.name == "tests/tests/references.rs" {
            continue;
        }
        for (line, number) in text.content.lines().zip(1..) {
            for id in invariants(line) {
                checked += 1;
                if !there.contains(&id) {
                    let place = format!("{}:{number}", text.name);
                    wrong.push(format!("{place}: I{id} is not in {DESIGN}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{checked} references to invariants were followed");
    assert!(checked >= LEAST_INVARIANTS, "only {checked} were found");
}

/// The targets of a document's links: `[text](target)`, code left out.
fn links(document: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code {
            continue;
        }
        for after in line.split("](").skip(1) {
            found.extend(after.split_once(')').map(|(target, _)| target));
        }
    }
    found
}

#[test]
fn every_file_that_is_linked_is_there() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for text in texts().iter().filter(|text| text.name.ends_with(".md")) {
        let path = root().join(&text.name);
        let folder = path.parent().unwrap();
        for target in links(&text.content) {
            let file = target.split('#').next().unwrap_or_default();
            if target.contains("://") || file.is_empty() {
                continue;
            }
            checked += 1;
            if !folder.join(file).exists() {
                wrong.push(format!("{}: {target} is not there", text.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{checked} links were followed");
    assert!(checked >= LEAST_LINKS, "only {checked} were found");
}
