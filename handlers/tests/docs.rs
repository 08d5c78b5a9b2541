//! docs/stub-api.md says what the code does: its words, built-ins, limits and examples.

#![allow(clippy::unwrap_used, reason = "a page that cannot be read fails with the place")]

use std::path::{Path, PathBuf};

use handlers::plan::{self, Framing, Plan, builtin};
use handlers::{Action, Event};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs")
}

fn page() -> String {
    std::fs::read_to_string(docs().join("stub-api.md")).unwrap()
}

/// The first cells of the table under `heading`, without their code marks.
fn first_cells(heading: &str, header: &str) -> Vec<String> {
    let page = page();
    let section = page.split_once(&format!("\n## {heading}\n")).unwrap().1;
    let table = section.split_once(&format!("\n| {header} |")).unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn the_page_has_a_row_for_each_event_and_action() {
    assert_eq!(first_cells("When", "event"), Event::ALL.iter().map(|e| e.word()).collect::<Vec<_>>());
    assert_eq!(first_cells("Then", "action"), Action::ALL.iter().map(|a| a.word()).collect::<Vec<_>>());
    assert!(Framing::ALL.iter().all(|framing| page().contains(&format!("`{framing}`"))));
}

#[test]
fn the_page_has_each_built_in_handler_in_its_order() {
    let plan = Plan::from_toml("max_retries = 1\nmax_redirects = 1").unwrap();
    let names: Vec<String> =
        builtin::handlers(&plan).iter().map(|handler| handler.name.as_deref().unwrap().to_owned()).collect();
    assert_eq!(first_cells("Built-in handlers", "name"), names);
}

#[test]
fn the_page_has_the_keys_that_the_schema_has() {
    let schema = plan::schema::schema();
    for (heading, header, pointer) in
        [("Keys of a plan", "key", "/properties"), ("When", "key", "/$defs/when/properties")]
    {
        let mut rows = first_cells(heading, header);
        rows.sort_unstable();
        let mut keys: Vec<&String> = schema.pointer(pointer).unwrap().as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(rows.iter().collect::<Vec<_>>(), keys, "{heading}");
    }
}

#[test]
fn the_page_has_the_limits_that_hold() {
    let page = page();
    for row in [
        "| 168h |".to_owned(),
        format!("| {} | {} |", plan::DEFAULT_BYTES, plan::MAX_BYTES),
        format!("| 0 | {} |", plan::MAX_RETRIES),
        format!("| 0 | {} |", plan::MAX_REDIRECTS),
        format!("| none | {} |", plan::MAX_HANDLERS),
        format!("| the text of a plan | {} bytes |", plan::MAX_PLAN),
        format!("| {}; {}; {} |", plan::MAX_HANDLERS, plan::MAX_CONDITIONS, plan::MAX_STEPS),
        format!("| events or status codes in a list | {} |", plan::MAX_CHOICES),
        format!("| headers of a condition or a response | {} |", plan::MAX_HEADERS),
        format!("| {} bytes; {} bytes |", plan::MAX_NAME, plan::MAX_TEXT),
        format!("| mistakes told at once | {} |", plan::MAX_PROBLEMS),
        format!("({} unless said, at most {})", plan::DEFAULT_WITHIN, plan::MAX_WITHIN),
        format!("a list of up to {}.", plan::MAX_JSON_TESTS),
        format!("a body of at most {} bytes", plan::MAX_ANSWER),
        format!("| {} bytes, {} steps |", handlers::pointer::MAX_POINTER, handlers::pointer::MAX_DEPTH),
    ] {
        assert!(page.contains(&row), "{row}");
    }
    assert_eq!((plan::MAX_WAIT.as_secs(), plan::DEFAULT_WAIT.as_secs()), (168 * 3600, 3600));
}

#[test]
fn the_page_shows_each_example_as_it_is() {
    let mut count = 0;
    for entry in std::fs::read_dir(docs().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(page().contains(&format!("```toml\n{text}```")), "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 2);
}
