//! The dialogues in `tests/dialogues`, each a test of its own: `FILE::TITLE`.

use std::fs;
use std::process::ExitCode;

use ingress_tests::corpus::{self, Dialogue};
use ingress_tests::dialogue;
use libtest_mimic::{Arguments, Trial};

/// A corpus that shrinks below this has lost files.
const DIALOGUES_MIN: usize = 600;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let dialogues = match corpus::load(&corpus::folder()) {
        Ok(dialogues) => dialogues,
        Err(fault) => {
            eprintln!("tests/dialogues: {fault:#}");
            return ExitCode::FAILURE;
        }
    };
    let complete = check_complete(&dialogues);
    let mut trials: Vec<Trial> = dialogues.into_iter().map(trial).collect();
    trials.push(Trial::test("the_corpus_is_complete", move || complete.map_err(Into::into)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(dialogue: Dialogue) -> Trial {
    let name = format!("{}::{}", topic(&dialogue), dialogue.title.replace(' ', "_"));
    Trial::test(name, move || {
        dialogue::play(&dialogue).map_err(|failure| failure.to_string().into())
    })
}

/// Whether there are as many as there were, and the table in README.md names each file.
fn check_complete(dialogues: &[Dialogue]) -> Result<(), String> {
    let count = dialogues.len();
    if count < DIALOGUES_MIN {
        return Err(format!("{count} dialogues; there are to be {DIALOGUES_MIN} at least"));
    }
    let readme = corpus::folder().join("README.md");
    let readme = fs::read_to_string(readme).map_err(|error| error.to_string())?;
    match dialogues.iter().find(|dialogue| !readme.contains(&format!("| `{}` |", topic(dialogue))))
    {
        Some(dialogue) => Err(format!("README.md has no line for {}", dialogue.file)),
        None => Ok(()),
    }
}

fn topic(dialogue: &Dialogue) -> &str {
    dialogue.file.trim_end_matches(".dialogue")
}
