use crate::config::{XdpConfig, XdpMode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    IncomingCpu,
    None,
}
impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::IncomingCpu => "incoming-cpu",
            Self::None => "none",
        }
    }
}
pub struct DataPlane(Tier);
impl DataPlane {
    pub fn start(config: &XdpConfig, _: &[usize], _: &[u16]) -> anyhow::Result<Self> {
        let demanded = matches!(config.mode, XdpMode::Native | XdpMode::Generic);
        anyhow::ensure!(
            config.interfaces.is_empty() || !demanded,
            "this binary was built without the eBPF object: set `xdp.mode` to \"auto\" or \"off\""
        );
        Ok(Self(if config.steering == crate::config::SteeringMode::Off {
            Tier::None
        } else {
            Tier::IncomingCpu
        }))
    }
    pub fn attach_listeners(
        &mut self,
        _: &[(usize, &std::net::TcpListener)],
    ) -> anyhow::Result<()> {
        Ok(())
    }
    pub fn tier(&self) -> Tier {
        self.0
    }
    pub fn reason(&self) -> &str {
        ""
    }
    pub fn status(&self) -> crate::control::XdpStatus {
        Default::default()
    }
}
