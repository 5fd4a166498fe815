//! What the process around the driver does for an operator at the admin console.

use crate::fault::Refusal;

/// How the process is to end, with PgBouncer's words behind `SHUTDOWN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When no client holds a server connection any more; nobody gets one meanwhile.
    WaitForServers,
    /// When the last client has left by itself; new ones are refused.
    WaitForClients,
}

/// A line of `SHOW CONFIG`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name, PgBouncer's where there is one.
    pub key: String,
    /// Its value as it would stand in a configuration file; never a secret.
    pub value: String,
    /// What holds where nothing is configured.
    pub default: String,
    /// Whether it can be changed while the process runs.
    pub changeable: bool,
}

/// Where settings come from, and where the end of the process is decided. Every call is made where blocking is allowed.
pub trait Control: Send + Sync + 'static {
    /// Reads the settings anew and puts them into force, all or none.
    ///
    /// # Errors
    /// What is wrong with them; those of before stay in force.
    fn reload(&self) -> Result<(), Refusal>;

    /// Changes one setting by its name until the process ends or is told otherwise.
    ///
    /// # Errors
    /// There is no such setting, it cannot be changed now, or the value does not fit.
    fn set(&self, key: &str, value: &str) -> Result<(), Refusal>;

    /// All settings in force, in the order of their names.
    fn settings(&self) -> Vec<Setting>;

    /// Ends the process, as a signal would.
    fn shutdown(&self, how: Shutdown);
}
