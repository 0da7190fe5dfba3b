//! The commands of the README, so that what it says is what is tested.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The section that installs the product.
const SECTION: &str = "## On Kubernetes";

/// The lines of the README's installation that call `program`, in their order.
///
/// # Errors: there are none.
pub fn commands(repository: &Path, program: &str) -> Result<Vec<String>> {
    let path = repository.join("README.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let commands = commands_in(&text, program);
    ensure!(!commands.is_empty(), "{} calls no {program} below {SECTION:?}", path.display());
    Ok(commands)
}

/// Lines that only show a flag (with an ellipsis) or stand in a sentence are no commands.
fn commands_in(text: &str, program: &str) -> Vec<String> {
    let section = text.split(SECTION).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    // Between two fences: every other piece.
    let shell = section.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = shell.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines.filter(|line| line.split_whitespace().next() == Some(program)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_commands_of_the_section_count() {
        let text = "## Try it\n```sh\nhelm no\n```\n## On Kubernetes\nhelm prose\n```sh\nhelm one --a   # why\nkubectl x\n```\n\
            ```console\nhelm shown\n```\n## Next\n```sh\nhelm no\n```\n";
        assert_eq!(commands_in(text, "helm"), ["helm one --a"]);
    }
}
