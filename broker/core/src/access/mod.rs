//! Who may publish, subscribe and read what.
//!
//! Rules are tried in the order given; the first that matches decides, and what no rule matches is denied. A
//! subscription is granted when a rule allows the *whole* filter before any rule denies the whole of it; topics within
//! it that an earlier rule denies are withheld at delivery, which is why every delivery (live, retained, queued or
//! replayed) is checked with [`Access::may_read`].

mod pattern;
mod rule;

pub use pattern::Pattern;
pub use rule::{
    ACCOUNT_NAME_BYTES_MAX, ANONYMOUS, Action, Effect, GROUP_NAME_BYTES_MAX, Rule, RuleError, Who, is_account_name,
    is_group_name,
};

use pattern::Names;
use std::collections::BTreeMap;

/// Distinct sets of rules that can be in use at the same time; who would need one more may do nothing.
///
/// Only accounts and groups that rules name make a set differ, so no client can make new ones.
const PROFILES_MAX: usize = 65_536;

/// Which rules apply to an account: a small number that all accounts with the same rules share.
///
/// It belongs to the [`Access`] that gave it: after a reload, ask the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProfileId(u32);

impl ProfileId {
    /// May do nothing.
    pub const NOTHING: Self = Self(0);
}

/// The rules of a broker. To change them, build a new one.
#[derive(Debug)]
pub struct Access {
    rules: Box<[Rule]>,
    /// There are no rules but the default.
    is_open: bool,
    of_everybody: Vec<u32>,
    of_anonymous: Vec<u32>,
    of_account: BTreeMap<String, Vec<u32>>,
    of_group: BTreeMap<String, Vec<u32>>,
    profiles: Vec<Profile>,
    ids: BTreeMap<Box<[u32]>, ProfileId>,
}

/// The rules that apply to some accounts, as indexes into [`Access::rules`], in their order.
#[derive(Debug, Default)]
struct Profile {
    publish: Box<[u32]>,
    subscribe: Box<[u32]>,
    publishes_everything: bool,
    reads_everything: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Access {
    /// Takes the rules in order. None at all means the default: everybody may publish and subscribe everything, except
    /// that what begins with `$SYS` is the broker's to publish.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        let is_open = rules.is_empty();
        if is_open {
            let everybody = |action, pattern| {
                Rule::parse("everybody", action, "allow", pattern).expect("these texts are among those parse() names")
            };
            rules = vec![everybody("all", "#"), everybody("subscribe", "$SYS/#")];
        }
        let mut access = Self {
            is_open,
            rules: Box::default(),
            of_everybody: Vec::new(),
            of_anonymous: Vec::new(),
            of_account: BTreeMap::new(),
            of_group: BTreeMap::new(),
            profiles: vec![Profile::default()],
            ids: BTreeMap::from([(Box::default(), ProfileId::NOTHING)]),
        };
        for (index, rule) in (0_u32..).zip(&rules) {
            let list = match &rule.who {
                Who::Everybody => &mut access.of_everybody,
                Who::Anonymous => &mut access.of_anonymous,
                Who::Account(name) if name == ANONYMOUS => &mut access.of_anonymous,
                Who::Account(name) => access.of_account.entry(name.clone()).or_default(),
                Who::Group(name) => access.of_group.entry(name.clone()).or_default(),
            };
            list.push(index);
        }
        access.rules = rules.into();
        access
    }

    /// The rules in use, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Which rules apply to `account` as a member of `groups`. To be asked once a connection, not once a message.
    pub fn profile(&mut self, account: &str, groups: &[String]) -> ProfileId {
        let mut applying = self.of_everybody.clone();
        if account == ANONYMOUS {
            applying.extend(&self.of_anonymous);
        } else {
            applying.extend(self.of_account.get(account).into_iter().flatten());
        }
        for group in groups {
            applying.extend(self.of_group.get(group).into_iter().flatten());
        }
        applying.sort_unstable();
        applying.dedup();
        if let Some(&id) = self.ids.get(applying.as_slice()) {
            return id;
        }
        if self.profiles.len() >= PROFILES_MAX {
            return ProfileId::NOTHING;
        }
        let Ok(number) = u32::try_from(self.profiles.len()) else { return ProfileId::NOTHING };
        let profile = self.build(&applying);
        self.profiles.push(profile);
        self.ids.insert(applying.into(), ProfileId(number));
        ProfileId(number)
    }

    fn build(&self, applying: &[u32]) -> Profile {
        let about = |except: Action| -> Box<[u32]> {
            applying.iter().copied().filter(|&index| self.rule(index).is_some_and(|r| r.action != except)).collect()
        };
        let (publish, subscribe) = (about(Action::Subscribe), about(Action::Publish));
        Profile {
            publishes_everything: self.allows_everything(&publish),
            reads_everything: self.allows_everything(&subscribe),
            publish,
            subscribe,
        }
    }

    /// Whether every topic that does not begin with `$` is allowed, whoever asks.
    fn allows_everything(&self, list: &[u32]) -> bool {
        list.iter()
            .filter_map(|&index| self.rule(index))
            .find(|rule| match rule.effect {
                Effect::Allow => rule.pattern.is_everything(),
                Effect::Deny => !rule.pattern.is_about_dollar(),
            })
            .is_some_and(|rule| rule.effect == Effect::Allow)
    }

    fn rule(&self, index: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(index).ok()?)
    }

    fn profile_of(&self, id: ProfileId) -> Option<&Profile> {
        self.profiles.get(usize::try_from(id.0).ok()?)
    }

    /// The effect of the first rule of `list` for which `is_about` holds; denied when there is none.
    fn first(&self, list: &[u32], is_about: impl Fn(&Rule) -> bool) -> bool {
        list.iter()
            .filter_map(|&index| self.rule(index))
            .find(|rule| is_about(rule))
            .is_some_and(|rule| rule.effect == Effect::Allow)
    }

    /// Whether `account` may publish to the topic name with the client identifier `terminal`.
    #[inline]
    pub fn may_publish(&self, profile: ProfileId, account: &str, terminal: &str, topic: &str) -> bool {
        let Some(profile) = self.profile_of(profile) else { return false };
        if profile.publishes_everything && (!topic.starts_with('$') || (self.is_open && !topic.starts_with("$SYS"))) {
            return true;
        }
        let names = Names { account, terminal };
        self.first(&profile.publish, |rule| rule.pattern.matches(topic, names, rule.effect))
    }

    /// Whether `account` may subscribe to the valid topic filter with the client identifier `terminal`.
    ///
    /// The filter of a shared subscription may be given with or without `$share/GROUP/`.
    pub fn may_subscribe(&self, profile: ProfileId, account: &str, terminal: &str, filter: &str) -> bool {
        let Some(profile) = self.profile_of(profile) else { return false };
        let filter = match filter.strip_prefix("$share/") {
            None => filter,
            Some(shared) => match shared.split_once('/') {
                Some((_, filter)) => filter,
                None => return false,
            },
        };
        if profile.reads_everything && (self.is_open || !filter.starts_with('$')) {
            return true;
        }
        let names = Names { account, terminal };
        self.first(&profile.subscribe, |rule| rule.pattern.covers(filter, names, rule.effect))
    }

    /// Whether a message of the topic name may be delivered to `account` with the client identifier `terminal`.
    #[inline]
    pub fn may_read(&self, profile: ProfileId, account: &str, terminal: &str, topic: &str) -> bool {
        let Some(profile) = self.profile_of(profile) else { return false };
        if profile.reads_everything && (self.is_open || !topic.starts_with('$')) {
            return true;
        }
        let names = Names { account, terminal };
        self.first(&profile.subscribe, |rule| rule.pattern.matches(topic, names, rule.effect))
    }

    /// True when every topic that does not begin with `$` may be read.
    #[cfg(test)]
    fn reads_everything(&self, profile: ProfileId) -> bool {
        self.profile_of(profile).is_some_and(|p| p.reads_everything)
    }

    /// True when every topic that does not begin with `$` may be published.
    #[cfg(test)]
    fn publishes_everything(&self, profile: ProfileId) -> bool {
        self.profile_of(profile).is_some_and(|p| p.publishes_everything)
    }

    /// True when neither publishing nor reading topics that do not begin with `$` is restricted.
    #[cfg(test)]
    fn unrestricted(&self, profile: ProfileId) -> bool {
        self.reads_everything(profile) && self.publishes_everything(profile)
    }
}

#[cfg(test)]
mod tests;
