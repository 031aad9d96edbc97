//! A primary that takes no writes while the log has no room for them.

use quorate_types::Epoch;

use crate::input::{Effect, Job, JobResult, Tick};
use crate::machine::{Machine, Phase};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limit {
    /// The log is near its budget.
    pub(crate) full: bool,
    /// The last epoch in which writes were stopped or resumed, and whether they are stopped; none
    /// while that is not known. A promotion leaves a server that takes them.
    state: Option<(Epoch, Option<bool>)>,
    retry_at: Tick,
}

impl Machine {
    /// Only while nothing else is done to the server; whatever comes aborts it, and sets the server
    /// as it needs it.
    pub(crate) fn limit_writes(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Phase::Primary { epoch } = self.phase else {
            return;
        };
        let stopped = match self.limit.state {
            Some((limited, stopped)) if limited == epoch => stopped,
            _ => Some(false),
        };
        if self.job.is_some()
            || self.is_over(epoch)
            || self.is_leaving()
            || stopped == Some(self.limit.full)
            || now < self.limit.retry_at
        {
            return;
        }
        // What becomes of one that is aborted is not known.
        self.limit.state = Some((epoch, None));
        let stop = self.limit.full;
        self.start(Job::LimitWrites { epoch, stop }, effects);
    }

    pub(crate) fn on_limited(
        &mut self,
        now: Tick,
        (epoch, stop): (Epoch, bool),
        result: JobResult,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            JobResult::Done => self.limit.state = Some((epoch, Some(stop))),
            JobResult::Failed(why) | JobResult::MustClone(_, why) => {
                let what = if stop { "stopped" } else { "resumed" };
                effects.push(Effect::Report(format!("writes could not be {what}: {why}")));
                self.limit.retry_at = now + self.timing.limit_retry;
            }
        }
    }
}
