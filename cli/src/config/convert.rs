//! From settings to the machines' own types. Everything that is not already one of theirs passes through here.

use gprxy_proto::policy::Account;

use super::settings::RoleConfig;

impl From<RoleConfig> for Account {
    fn from(role: RoleConfig) -> Self {
        Self { name: role.account, password: role.password }
    }
}
