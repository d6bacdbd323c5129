//! The dialogues in `tests/dialogues`, each a test of its own: `FILE::TITLE`.

use std::process::ExitCode;

use ingress_tests::corpus::{self, Dialogue};
use ingress_tests::dialogue;
use libtest_mimic::{Arguments, Trial};

/// A corpus that shrinks below this has lost files.
const DIALOGUES_MIN: usize = 300;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let dialogues = match corpus::load(&corpus::folder()) {
        Ok(dialogues) => dialogues,
        Err(fault) => {
            eprintln!("tests/dialogues: {fault:#}");
            return ExitCode::FAILURE;
        }
    };
    let count = dialogues.len();
    let mut trials: Vec<Trial> = dialogues.into_iter().map(trial).collect();
    trials.push(Trial::test("the_corpus_is_complete", move || {
        if count >= DIALOGUES_MIN {
            return Ok(());
        }
        Err(format!("{count} dialogues; there are to be {DIALOGUES_MIN} at least").into())
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(dialogue: Dialogue) -> Trial {
    let topic = dialogue.file.trim_end_matches(".dialogue");
    let name = format!("{topic}::{}", dialogue.title.replace(' ', "_"));
    Trial::test(name, move || {
        dialogue::play(&dialogue).map_err(|failure| failure.to_string().into())
    })
}
