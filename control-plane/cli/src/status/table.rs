//! Rows as a table for people.

use super::rows::{Condition, Row};
use crate::output::shown;

/// The table, with the messages of what is not well below its row.
pub fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing\n".to_owned();
    }
    let cells: Vec<[String; 3]> = rows.iter().map(|row| [shown(&row.object), shown(&row.part), state(row)]).collect();
    let width = |column: fn(&[String; 3]) -> &String, title: &str| {
        cells.iter().map(|cells| column(cells).chars().count()).max().unwrap_or_default().max(title.len())
    };
    let (first, second) = (width(|cells| &cells[0], "OBJECT"), width(|cells| &cells[1], "PART"));
    let mut lines = vec![format!("{:<first$}  {:<second$}  STATE", "OBJECT", "PART")];
    let mut above = "";
    for (row, [object, part, state]) in rows.iter().zip(&cells) {
        let name = if object == above { "" } else { object.as_str() };
        above = object;
        lines.push(format!("{name:<first$}  {part:<second$}  {state}").trim_end().to_owned());
        let bad = row.conditions.iter().filter(|condition| !condition.is_well && !condition.message.is_empty());
        lines.extend(bad.map(|condition| format!("    {}: {}", shown(&condition.reason), shown(&condition.message))));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn state(row: &Row) -> String {
    let conditions: Vec<String> = row.conditions.iter().map(condition).collect();
    let conditions = conditions.join(", ");
    let notes = shown(&row.notes.join(", "));
    match (conditions.as_str(), notes.as_str()) {
        ("", _) => format!("{}{notes}", if row.is_well { "" } else { "! " }),
        (_, "") => conditions,
        _ => format!("{conditions}; {notes}"),
    }
}

/// The name where all is well, and what is the case where not.
fn condition(condition: &Condition) -> String {
    let name = shown(&condition.name);
    if condition.is_well && condition.status == "True" {
        name
    } else if condition.is_well {
        format!("{name}={}", shown(&condition.status))
    } else {
        format!("! {name}={} ({})", shown(&condition.status), shown(&condition.reason))
    }
}
