//! Rules on the text of single files.

use std::path::Path;

use super::Findings;

/// Lines of a Rust file beyond which it fails. The aim is about 400.
const MAX_LINES: usize = 800;
/// Lines of a Rust file beyond which it is mentioned.
const MANY_LINES: usize = 600;
/// Columns of a line of Rust.
const MAX_COLUMNS: usize = 100;
/// Marks of unfinished work. Spelled in two halves, so that this file does not carry them.
const MARKS: [&str; 3] = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const UNFINISHED: &str = concat!("to", "do!(");
/// Starts of home folders: somebody's machine, not the project's.
const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
/// Extensions of the files in which unfinished work is looked for.
const CODE: [&str; 7] = ["rs", "sql", "sh", "toml", "js", "css", "html"];
/// Folders of test data, whose lines are as long as their source made them.
const DATA: [&str; 3] = ["data", "vectors", "fixtures"];

/// Checks one file: `path` relative to `root`.
pub(super) fn check(path: &Path, text: &str, root: &Path, findings: &mut Findings) {
    let name = path.display();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_data = path.iter().any(|part| DATA.iter().any(|data| part == *data));
    if extension == "rs" && !is_data {
        match text.lines().count() {
            0..=MANY_LINES => {}
            lines @ ..=MAX_LINES => findings.warn(format!("{name}: {lines} lines")),
            lines => findings.error(format!("{name}: {lines} lines, at most {MAX_LINES}")),
        }
    }
    for (number, line) in (1..).zip(text.lines()) {
        if extension == "rs" && !is_data && is_long(line) {
            findings.error(format!("{name}:{number}: more than {MAX_COLUMNS} columns"));
        }
        if CODE.contains(&extension) && !is_data && is_unfinished(line) {
            findings.error(format!("{name}:{number}: unfinished work is an issue, not a mark"));
        }
        if names_a_machine(line, root) {
            findings.error(format!("{name}:{number}: names a folder of somebody's machine"));
        }
    }
}

fn is_long(line: &str) -> bool {
    line.chars().count() > MAX_COLUMNS && !line.contains("https://") && !line.contains("http://")
}

fn is_unfinished(line: &str) -> bool {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| MARKS.contains(&word)) || line.contains(UNFINISHED)
}

fn names_a_machine(line: &str, root: &Path) -> bool {
    let root = root.to_str().filter(|root| root.len() > 1);
    HOMES.iter().any(|home| starts_a_path(line, home))
        || root.is_some_and(|root| starts_a_path(line, root))
}

/// True if `folder` occurs in `line` as the start of an absolute path, not inside a longer one.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "/._-~$})]".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(path: &str, text: &str) -> usize {
        let mut findings = Findings::default();
        check(Path::new(path), text, Path::new("/srv/checkout"), &mut findings);
        findings.errors.len()
    }

    #[test]
    fn large_files_warn_and_then_fail() {
        let outcome = |lines: usize| {
            let mut findings = Findings::default();
            check(Path::new("a.rs"), &"x\n".repeat(lines), Path::new("/"), &mut findings);
            (findings.warnings.len(), findings.errors.len())
        };
        assert_eq!(outcome(600), (0, 0));
        assert_eq!(outcome(601), (1, 0));
        assert_eq!(outcome(800), (1, 0));
        assert_eq!(outcome(801), (0, 1));
    }

    #[test]
    fn long_lines_of_code_fail_but_not_addresses_text_or_data() {
        let long = "x".repeat(101);
        assert_eq!(errors("a.rs", &"é".repeat(100)), 0, "columns, not bytes");
        assert_eq!(errors("a.rs", &long), 1);
        assert_eq!(errors("a.rs", &format!("// https://example.org/{long}")), 0);
        assert_eq!(errors("a.md", &long), 0);
        assert_eq!(errors("core/pki/tests/data/a.rs", &long), 0);
    }

    #[test]
    fn marks_of_unfinished_work_fail() {
        for mark in MARKS {
            assert_eq!(errors("a.rs", &format!("// {mark}: later")), 1, "{mark}");
            assert_eq!(errors("a.md", &format!("no {mark} in code")), 0);
            assert_eq!(errors("a.rs", &format!("let template = \"{mark}{mark}\";")), 0);
        }
        assert_eq!(errors("a.rs", &format!("    {UNFINISHED})")), 1);
        assert_eq!(errors("a.rs", "// nothing left to do"), 0);
    }

    #[test]
    fn absolute_paths_of_a_machine_fail_wherever_they_stand() {
        for home in HOMES {
            assert_eq!(errors("a.md", &format!("see {home}me/x")), 1, "{home}");
            assert_eq!(errors("a.toml", &format!("path = \"{home}me/x\"")), 1);
            assert_eq!(errors("a.md", &format!("`docs{home}page`")), 0, "inside a longer path");
        }
        assert_eq!(errors("a.md", "built in /srv/checkout/target"), 1);
        assert_eq!(errors("a.md", "built in /usr/lib/postgresql"), 0);
    }
}
