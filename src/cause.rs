//! An error and its causes as one sentence.

use std::error::Error;

/// `x cannot be opened: Permission denied`: the error and all of its causes, each named once, and
/// without the number that Rust puts behind the system's words.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    without_numbers(&text)
}

fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |words, part| match part.split_once(')') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => words + rest,
        _ => words + " (os error " + part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_numbers_are_left_out() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(sentence(&error), "No such file or directory");
        assert_eq!(
            without_numbers("a (os error 2), b (os error x) c"),
            "a, b (os error x) c"
        );
    }
}
