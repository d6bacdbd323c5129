//! What has to be known of interfaces before programs are attached to them.

use std::collections::BTreeMap;

use super::{Machine, Nic, each_worker_has_a_queue};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The receive queues of every interface by themselves spread connections over all workers.
    pub queues_fit: bool,
    /// The XDP program of each interface that has one, by its id.
    pub programs: BTreeMap<String, u32>,
}

impl Survey {
    /// An interface that cannot be read has no queues that fit and no program; who attaches to it will say why.
    pub async fn of(interfaces: &[String], workers: &[usize]) -> Self {
        let mut survey = Self { queues_fit: !interfaces.is_empty(), ..Self::default() };
        for name in interfaces {
            let nic = Nic::read(&Machine::this(), name).await.ok();
            let fits = nic.as_ref().is_some_and(|nic| each_worker_has_a_queue(nic, workers));
            survey.queues_fit &= fits;
            let program = nic.and_then(|nic| nic.xdp).map(|program| (name.clone(), program.id));
            survey.programs.extend(program);
        }
        survey
    }
}
