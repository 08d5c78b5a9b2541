//! Where a handler is, in words.

/// `handler 2 "paid"`.
pub(super) fn place(index: usize, name: Option<&str>) -> String {
    let number = index.saturating_add(1);
    match name {
        Some(name) => format!("handler {number} \"{name}\""),
        None => format!("handler {number}"),
    }
}
