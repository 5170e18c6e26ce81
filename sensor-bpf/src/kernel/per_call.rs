//! Programs that run at every system call, or at every check of a capability, of the whole machine: attached only while
//! somebody is watched by them.

use libbpf_rs::{Error, Link, ProgramMut};

use super::skel::SensorProgs;

/// Their links.
#[derive(Default)]
pub(super) struct PerCall {
    sys_exit: Option<Link>,
    capable: Option<Link>,
    /// The host itself is watched by its system calls.
    host: bool,
}

impl PerCall {
    /// There is a workload: all of them are attached.
    pub(super) fn watch_workloads(&mut self, progs: &SensorProgs<'_>) -> Result<(), Error> {
        attach(&mut self.sys_exit, &progs.on_sys_exit)?;
        attach(&mut self.capable, &progs.on_capable)
    }

    /// The last workload is gone.
    pub(super) fn leave_workloads(&mut self) {
        self.capable = None;
        if !self.host {
            self.sys_exit = None;
        }
    }

    /// The host is watched by its system calls; capabilities are asked for by rules only, and none judges the host.
    pub(super) fn watch_host(&mut self, progs: &SensorProgs<'_>) -> Result<(), Error> {
        attach(&mut self.sys_exit, &progs.on_sys_exit)?;
        self.host = true;
        Ok(())
    }

    /// The host is not watched any more.
    pub(super) fn leave_host(&mut self, workloads: bool) {
        self.host = false;
        if !workloads {
            self.sys_exit = None;
        }
    }
}

fn attach(link: &mut Option<Link>, program: &ProgramMut<'_>) -> Result<(), Error> {
    if link.is_none() && program.autoload() {
        *link = Some(program.attach()?);
    }
    Ok(())
}
