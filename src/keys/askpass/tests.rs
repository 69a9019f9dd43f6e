use super::*;

/// A program that is a shell script; the question is its `$1`.
fn askpass(script: &str) -> Askpass {
    Askpass(["sh", "-c", script, "sh"].map(str::to_owned).to_vec())
}

async fn asked(script: &str) -> Result<String, String> {
    let mut interrupt = Interrupt::listen().unwrap();
    match askpass(script).ask("Who?", &mut interrupt).await {
        Ok(answer) => Ok(String::from_utf8(answer.bytes().to_vec()).unwrap()),
        Err(NoAnswer::Nothing(why)) => Err(why),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_line_is_the_answer() {
    for (script, answer) in [
        ("echo \"$1\"", "Who?"),
        ("printf 'a b'", "a b"),
        ("printf ' a\\r\\nb\\n'", " a\r"),
        ("printf a; sleep 0.1; echo b", "ab"),
    ] {
        assert_eq!(asked(script).await.as_deref(), Ok(answer), "{script}");
    }
    let longest = "x".repeat(LONGEST_LINE);
    let script = format!("printf {longest}");
    assert_eq!(asked(&script).await, Ok(longest));
}

#[tokio::test]
async fn what_is_no_answer() {
    for (script, why) in [
        ("echo a; exit 1", "it ended with exit status 1"),
        ("kill -KILL $$", "it ended with signal 9"),
        (":", "it printed nothing"),
        ("echo; echo a", "it printed nothing"),
        ("yes", "it printed more than 4096 bytes"),
    ] {
        assert_eq!(asked(script).await, Err(why.to_owned()), "{script}");
    }
    let mut interrupt = Interrupt::listen().unwrap();
    let none = Askpass(vec!["/no/such/program".to_owned()]);
    match none.ask("Who?", &mut interrupt).await {
        Err(NoAnswer::Nothing(why)) => {
            assert_eq!(why, "it cannot be run: No such file or directory");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(none.to_string(), "/no/such/program");
}
