//! The filter of a proxy's own log, checked here because a proxy with one that does not parse ends as it starts.
//!
//! Source: the directives of `tracing_subscriber::EnvFilter`, `target[span{field=value}]=level`, parts optional. Invariant:
//! what passes here parses there (a test compares them). The reverse does not hold for oddities such as regular
//! expressions as field values.

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// # Errors: the text for the user, with the first bad directive.
pub(super) fn check(filter: &str) -> Result<(), String> {
    match filter.split(',').find(|directive| !directive.is_empty() && !is_directive(directive)) {
        None => Ok(()),
        Some(bad) => Err(format!(
            "spec.log.filter: {bad:?} is not a directive, want LEVEL or TARGET=LEVEL with a level of {}",
            LEVELS.join(", ")
        )),
    }
}

fn is_directive(text: &str) -> bool {
    let head = text.find('=').and_then(|end| text.get(..end)).unwrap_or(text);
    let Some((target, rest)) = text.split_once('[').filter(|_| head.contains('[')) else {
        return match text.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            // A level, or a target of which everything is written.
            None => is_target(text),
        };
    };
    let Some((span, level)) = rest.split_once(']') else { return false };
    (target.is_empty() || is_target(target))
        && is_span(span)
        && (level.is_empty() || level.strip_prefix('=').is_some_and(is_level))
}

fn is_target(text: &str) -> bool {
    let starts = |character: char| character.is_ascii_alphanumeric() || "-:_".contains(character);
    text.starts_with(starts) && is_plain(text)
}

fn is_span(text: &str) -> bool {
    let Some((name, fields)) = text.split_once('{') else { return is_plain(text) };
    let Some(field) = fields.strip_suffix('}') else { return false };
    let (field, value) = field.split_once('=').unwrap_or((field, ""));
    is_plain(name) && !field.is_empty() && is_plain(field) && is_plain(value)
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || "-:_./".contains(character))
}

/// Nothing stands for every level.
fn is_level(text: &str) -> bool {
    matches!(text, "" | "0" | "1" | "2" | "3" | "4" | "5")
        || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing_subscriber::EnvFilter;

    use super::check;

    #[test]
    fn levels_alone_and_by_target_pass() {
        for filter in [
            "info",
            "WARN",
            "info,gateway_engine=debug",
            "gateway_engine::pool=trace,off",
            "h2=3",
            "hyper",
            "warn,[request]=debug",
            "gateway[request{route=a}]=trace",
            "a,,b=info",
        ] {
            assert_eq!(check(filter), Ok(()), "{filter}");
            assert!(EnvFilter::try_new(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_directive_that_would_end_the_proxy_is_named() {
        for (filter, bad) in
            [("info,a=bogus", "a=bogus"), ("a=b=info", "a=b=info"), ("info,/x", "/x"), ("[a=info", "[a=info")]
        {
            assert!(check(filter).unwrap_err().contains(&format!("{bad:?}")), "{filter}");
            assert!(EnvFilter::try_new(filter).is_err(), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_parses_in_the_proxy(filter in "(info|debug|off|a|b::c|[a=,:/{}\\[\\]._-]|[0-9A-Z]){1,12}") {
            if check(&filter).is_ok() {
                prop_assert!(EnvFilter::try_new(&filter).is_ok(), "{}", filter);
            }
        }
    }
}
