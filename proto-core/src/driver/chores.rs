//! What is done with server connections for no session in particular: they are opened as the last one was that a session
//! asked for, and reset ahead of who comes next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::mailbox::lock;
use super::opening::{furnish, log_in, log_in_bare};
use super::runtime::Runtime;
use super::server;
use super::shared::Shared;
use super::told;
use crate::codec::backend::TransactionStatus;
use crate::pool::{Lease, OpenError, PoolKey, Returned};
use crate::session::Wish;
use crate::upstream::ResetPlan;

/// Pools that are remembered. Where clients may name any database, what they leave behind must be bounded.
const MAX_RECIPES: usize = 1024;

/// The wish by which a pool's last connection was opened, or by which a standing one is kept.
#[derive(Default)]
pub(super) struct Recipes(Mutex<HashMap<PoolKey, Recipe>>);

struct Recipe {
    /// Of the settings that it is from.
    generation: u64,
    wish: Arc<Wish>,
    standing: bool,
}

impl Recipes {
    /// Kept only where it will be needed: a wish may hold what logs somebody in.
    pub(super) fn keep(&self, generation: u64, wish: &Arc<Wish>) {
        if wish.settings.min_pool_size == 0 || !wish.credential.may_be_shared() {
            return;
        }
        let (mut recipes, key) = (lock(&self.0), wish.pool());
        let known = recipes.get(&key);
        let stands = known.is_some_and(|known| known.standing && known.generation == generation);
        if !stands && (recipes.len() < MAX_RECIPES || known.is_some()) {
            recipes.insert(key, Recipe { generation, wish: wish.clone(), standing: false });
        }
    }

    /// For a pool that is there without anybody.
    fn stand(&self, generation: u64, wish: &Arc<Wish>) {
        lock(&self.0).insert(wish.pool(), Recipe { generation, wish: wish.clone(), standing: true });
    }

    fn find(&self, generation: u64, key: &PoolKey, parameters: &[u8]) -> Option<Arc<Wish>> {
        let recipes = lock(&self.0);
        let Recipe { generation: from, wish, .. } = recipes.get(key)?;
        (*from == generation && *wish.parameters == *parameters).then(|| wish.clone())
    }
}

/// A lease that goes back in any case, also when its task ends early.
struct Held<R: Runtime> {
    shared: Arc<Shared<R>>,
    lease: Option<Lease>,
}

impl<R: Runtime> Drop for Held<R> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.shared.with_hub(|hub, now| hub.pools.handle_chore_failed(lease, now));
        }
    }
}

impl<R: Runtime> Shared<R> {
    /// Removes somebody's state from an idle connection, so that the next one need not wait for that.
    pub(super) fn clean_ahead(self: &Arc<Self>, lease: Lease) {
        let Some(mut connection) = self.take_parked(lease.slot()) else { return self.discard(lease) };
        let held = Held { shared: self.clone(), lease: Some(lease) };
        let proof = self.with_hub(|hub, _| hub.random());
        R::spawn(async move {
            let mut held = held;
            let plan = ResetPlan::for_another(&connection.settings, proof);
            let clean = server::reset::<R>(&mut connection, TransactionStatus::Idle, plan).await.is_ok();
            let (shared, Some(lease)) = (held.shared.clone(), held.lease.take()) else { return };
            if !clean {
                shared.tell_end(&connection, told::UNCLEAN);
                return shared.discard(lease);
            }
            shared.park(lease.slot(), connection);
            shared.with_hub(|hub, now| hub.pools.handle_release(lease, Returned::Clean, now));
        });
    }

    /// Keeps what is to be kept by these settings before anybody has come.
    pub(super) fn stand(self: &Arc<Self>) {
        let terms = self.terms();
        let wishes: Vec<Arc<Wish>> = terms.profile.standing().into_iter().map(Arc::new).collect();
        for wish in &wishes {
            self.recipes.stand(terms.generation, wish);
        }
        let pools = wishes.iter().map(|wish| (wish.pool(), wish.settings.clone(), wish.parameters.clone())).collect();
        self.with_hub(|hub, now| hub.pools.stand(pools, now));
    }

    /// Opens a connection for whoever comes next.
    pub(super) fn open_ahead(self: &Arc<Self>, key: &PoolKey, parameters: &[u8], lease: Lease) {
        let mut held = Held { shared: self.clone(), lease: Some(lease) };
        let generation = self.generation();
        let Some(wish) = self.recipes.find(generation, key, parameters) else { return };
        if self.is_draining() {
            return;
        }
        R::spawn(async move {
            let shared = held.shared.clone();
            let opened = match wish.parameters.is_empty() {
                true => log_in_bare::<R>(&shared, &wish).await,
                false => log_in::<R>(&shared, &wish).await,
            };
            let Some(lease) = held.lease.take() else { return };
            match opened {
                Ok((mut connection, login)) => {
                    furnish(&shared, generation, &wish, &lease, &mut connection, &login);
                    let slot = lease.slot();
                    shared.park(slot, connection);
                    shared.with_hub(|hub, now| {
                        hub.pools.handle_opened(&lease, now);
                        hub.pools.handle_release(lease, Returned::Clean, now);
                    });
                }
                Err(failure) => {
                    let error = OpenError { refusal: failure.refusal(), is_down: failure.is_down() };
                    told::login_failed(&wish, &failure);
                    shared.with_hub(|hub, now| match failure.concerns_others() {
                        // There is no session that could wait.
                        true => _ = hub.pools.handle_open_failed(lease, error, now),
                        false => hub.pools.handle_chore_failed(lease, now),
                    });
                }
            }
        });
    }
}
