//! From settings to the machines' own types. Everything that is not already one of theirs passes through here.

use std::sync::Arc;

use gprxy_proto::policy::Account;
use gprxy_proto::secret::Secret;

use super::settings::RoleConfig;

impl From<&RoleConfig> for Account {
    fn from(role: &RoleConfig) -> Self {
        let password =
            role.password.as_ref().map(|password| Arc::new(Secret::new(password.expose().as_bytes().to_vec())));
        Self { name: role.account.clone(), password }
    }
}
