//! So many lines of one kind a second, so that a flood of clients is not a flood in the log.

/// A budget of log lines; what is beyond is counted and said with the next line.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    /// The second of the last line, since 1970.
    second: u64,
    lines: u32,
    suppressed: u64,
}

/// Lines of one kind in a second.
const LINES_MAX: u32 = 10;

impl LogBudget {
    /// Whether a line may be written now, and how many were not since the last one that was.
    pub(crate) fn take(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines == LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_trickle_in_the_log_and_says_how_much_is_missing() {
        let mut budget = LogBudget::default();
        let written = (0..1_000).filter(|_| budget.take(7).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(budget.take(8), Some(1_000 - u64::from(LINES_MAX)));
        assert_eq!(budget.take(8), Some(0));
    }
}
