//! What the process around the driver does for an operator at the admin console.

pub use crate::console::{Setting, Shutdown};
use crate::fault::Refusal;

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
