use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// For each line that a test waits for.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);
/// From SIGTERM to the end of the program and of all that it started.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Another server, beside the daemon, which runs as long as a test does. Ended when dropped.
///
/// It is started with a command of [`programs`](crate::programs), so `timeout` is its parent: that passes SIGTERM on to all
/// the processes of a server, and ends them also when the test itself was killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts `command`, whose standard output will be read line by line.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("timeout(1) is there");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let _nobody_reads = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line with `text` in it. Panics, showing every line so far, when none comes in time.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LINE_TIMEOUT).unwrap_or_else(|error| {
                panic!("no line with {text:?} ({error}) after:\n{}", self.seen.join("\n"))
            });
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        // The end of its output is the end of every process that could write there.
        loop {
            match self.lines.recv_timeout(STOP_TIMEOUT) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _gone = self.child.kill();
                    break;
                }
            }
        }
        let _reaped = self.child.wait();
        if thread::panicking() {
            eprintln!("the other server wrote:\n{}", self.seen.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::bounded;
    use crate::wait::wait_for;

    #[test]
    fn a_line_is_found_behind_others() {
        let mut process = Process::start(bounded("sh").args(["-c", "echo one; echo two; cat"]));
        assert_eq!(process.wait_for_line("tw"), "two");
    }

    #[test]
    #[should_panic(expected = "no line with \"three\"")]
    fn a_line_that_never_comes_is_named() {
        Process::start(bounded("echo").arg("one")).wait_for_line("three");
    }

    #[test]
    fn what_the_program_started_ends_with_it() {
        let script = "tail -f /dev/null & echo child $!; wait";
        let mut process = Process::start(bounded("sh").args(["-c", script]));
        let line = process.wait_for_line("child");
        let child: i32 = line.trim_start_matches("child ").parse().unwrap();
        drop(process);
        let child = Pid::from_raw(child).unwrap();
        let stat = format!("/proc/{}/stat", child.as_raw_nonzero());
        // Its new parent may leave it a zombie.
        wait_for("end of what was started", Duration::from_secs(20), || {
            std::fs::read_to_string(&stat).map_or(true, |state| state.contains(") Z "))
        });
    }
}
