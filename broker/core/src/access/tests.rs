use super::*;

fn rules(texts: &[(&str, &str, &str, &str)]) -> Access {
    Access::new(
        texts.iter().map(|(who, action, effect, pattern)| Rule::parse(who, action, effect, pattern).unwrap()).collect(),
    )
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

#[test]
fn without_rules_everything_is_open_but_the_brokers_own_topics() {
    let mut access = Access::default();
    let p = access.profile("alice", &[]);
    assert_eq!(p, access.profile(ANONYMOUS, &[]));
    assert!(access.unrestricted(p));
    assert!(access.may_publish(p, "alice", "t", "a/b"));
    assert!(access.may_subscribe(p, "alice", "t", "#"));
    assert!(access.may_subscribe(p, "alice", "t", "$SYS/#"));
    assert!(access.may_subscribe(p, "alice", "t", "$share/g/a/#"));
    assert!(access.may_read(p, "alice", "t", "$SYS/broker/uptime"));
    assert!(access.may_subscribe(p, "alice", "t", "$other/#"));
    assert!(access.may_subscribe(p, "alice", "t", "$share/g/$other/#"));
    assert!(!access.may_subscribe(p, "alice", "t", "$share/g"));
    assert!(access.may_read(p, "alice", "t", "$other/x"));
    assert!(!access.may_publish(p, "alice", "t", "$SYS/broker/uptime"));
    assert!(access.may_publish(p, "alice", "t", "$other/x"));
}

#[test]
fn nothing_matching_is_denied_and_the_first_match_decides() {
    let mut access = rules(&[
        ("everybody", "publish", "deny", "a/secret"),
        ("account:alice", "publish", "allow", "a/#"),
        ("group:staff", "all", "allow", "#"),
        ("anonymous", "subscribe", "allow", "news/#"),
    ]);
    let (alice, bob) = (access.profile("alice", &[]), access.profile("bob", &[]));
    let (boss, anonymous) = (access.profile("bob", &groups(&["staff", "x"])), access.profile(ANONYMOUS, &[]));
    assert!(access.may_publish(alice, "alice", "t", "a/b"));
    assert!(!access.may_publish(alice, "alice", "t", "a/secret"));
    assert!(!access.may_read(alice, "alice", "t", "a/b"));
    assert!(!access.may_publish(bob, "bob", "t", "a/b"));
    assert!(!access.may_publish(boss, "bob", "t", "a/secret"));
    assert!(access.may_publish(boss, "bob", "t", "z"));
    assert!(access.reads_everything(boss) && !access.publishes_everything(boss));
    assert!(access.may_read(anonymous, ANONYMOUS, "t", "news/today"));
    assert!(!access.may_publish(anonymous, ANONYMOUS, "t", "news/today"));
    assert!(!access.may_read(ProfileId(99), "alice", "t", "a"));
    assert!(!access.may_publish(ProfileId::NOTHING, "alice", "t", "a"));
}

#[test]
fn accounts_with_the_same_rules_share_a_profile() {
    let mut access = rules(&[("account:alice", "all", "allow", "x"), ("group:g", "all", "allow", "y")]);
    let first = access.profile("n1", &groups(&["g"]));
    for n in 0..1000 {
        assert_eq!(access.profile(&format!("n{n}"), &groups(&["g", "unknown", "g"])), first);
    }
    assert_ne!(access.profile("alice", &groups(&["g"])), first);
    assert_eq!(access.profile("bob", &[]), ProfileId::NOTHING);
    assert_eq!(access.profiles.len(), 3);
    // A group and an account of the same name are different things.
    assert_eq!(access.profile("g", &[]), ProfileId::NOTHING);
}

#[test]
fn substitutions_put_in_who_asks() {
    let mut access = rules(&[
        ("everybody", "all", "allow", "site/%a/#"),
        ("everybody", "all", "allow", "log/%a-%t.txt"),
        ("everybody", "all", "allow", "%t/100%%"),
    ]);
    let p = access.profile("alice", &[]);
    assert!(access.may_publish(p, "alice", "t1", "site/alice/x"));
    assert!(access.may_publish(p, "alice", "t1", "site/alice"));
    assert!(!access.may_publish(p, "alice", "t1", "site/alice2"));
    assert!(!access.may_publish(p, "bob", "t1", "site/alice/x"));
    assert!(access.may_publish(p, "alice", "t1", "log/alice-t1.txt"));
    assert!(!access.may_publish(p, "alice", "t1", "log/alice-t2.txt"));
    assert!(!access.may_publish(p, "alice", "t1", "log/alice-t1.txt.old"));
    assert!(access.may_publish(p, "alice", "t1", "t1/100%"));
    assert!(access.may_subscribe(p, "alice", "t1", "site/alice/+/x"));
    assert!(access.may_subscribe(p, "alice", "t1", "site/alice/#"));
    assert!(!access.may_subscribe(p, "alice", "t1", "site/+/x"));
    assert!(!access.may_subscribe(p, "alice", "t1", "site/#"));
    assert!(access.may_subscribe(p, "alice", "t1", "log/alice-t1.txt"));
    assert!(!access.may_subscribe(p, "alice", "t1", "log/+"));
}

#[test]
fn no_client_identifier_widens_an_allow_rule() {
    let mut access = rules(&[("everybody", "all", "allow", "dev/%t/#"), ("everybody", "all", "allow", "%t/in")]);
    let p = access.profile("alice", &[]);
    for (terminal, topic, filter) in [
        ("+", "dev/other/x", "dev/+/x"),
        ("#", "dev/other/x", "dev/#"),
        ("+/#", "dev/other/x", "dev/+/#"),
        ("other/x", "dev/other/x", "dev/other/x/#"),
        ("", "dev//x", "dev//#"),
        ("a\0", "dev/a\0/x", "dev/a\0/#"),
        ("$SYS", "$SYS/in", "$SYS/in"),
        ("+", "+/in", "+/in"),
    ] {
        assert!(!access.may_publish(p, "alice", terminal, topic), "{terminal:?} {topic}");
        assert!(!access.may_read(p, "alice", terminal, topic), "{terminal:?} {topic}");
        assert!(!access.may_subscribe(p, "alice", terminal, filter), "{terminal:?} {filter}");
    }
    // Elsewhere than at the start a dollar sign is a letter like any other.
    assert!(access.may_publish(p, "alice", "$SYS", "dev/$SYS/x"));
}

#[test]
fn no_client_identifier_escapes_a_deny_rule() {
    let mut access = rules(&[
        ("everybody", "all", "deny", "cmd/x%t/set"),
        ("everybody", "all", "deny", "%t/own"),
        ("everybody", "all", "allow", "#"),
        ("everybody", "all", "allow", "$SYS/#"),
    ]);
    let p = access.profile("alice", &[]);
    assert!(!access.may_publish(p, "alice", "t", "cmd/xt/set"));
    assert!(access.may_publish(p, "alice", "t", "cmd/xu/set"));
    assert!(access.may_publish(p, "alice", "t", "cmd/y"));
    assert!(!access.may_publish(p, "alice", "$SYS", "$SYS/own"));
    assert!(access.may_read(p, "alice", "$SYS", "$SYS/other"));
    for terminal in ["a/b", "+", "#", "", "a\0"] {
        assert!(!access.may_publish(p, "alice", terminal, "cmd/xa/b/set"), "{terminal:?}");
        assert!(!access.may_publish(p, "alice", terminal, "cmd/x"), "{terminal:?}");
        assert!(!access.may_subscribe(p, "alice", terminal, "cmd/xa/b/set"), "{terminal:?}");
    }
}

#[test]
fn a_filter_is_granted_as_a_whole_and_denied_parts_are_withheld() {
    let mut access = rules(&[
        ("everybody", "subscribe", "deny", "a/secret/#"),
        ("everybody", "subscribe", "deny", "b/+"),
        ("everybody", "subscribe", "allow", "a/#"),
        ("everybody", "subscribe", "allow", "b/#"),
        ("everybody", "subscribe", "deny", "#"),
    ]);
    let p = access.profile("alice", &[]);
    let may = |filter| access.may_subscribe(p, "alice", "t", filter);
    assert!(may("a/#"));
    assert!(may("a/+/x"));
    assert!(!may("a/secret"));
    assert!(!may("a/secret/#"));
    assert!(!may("a/secret/+/x"));
    assert!(!may("b/+"));
    assert!(!may("b/x"));
    assert!(may("b/#"));
    assert!(!may("#"));
    assert!(!may("+/x"));
    assert!(!access.may_read(p, "alice", "t", "a/secret/x"));
    assert!(!access.may_read(p, "alice", "t", "b/x"));
    assert!(access.may_read(p, "alice", "t", "b/x/y"));
    assert!(access.may_read(p, "alice", "t", "a"));
}

#[test]
fn wildcards_at_the_front_never_reach_dollar_topics() {
    // [MQTT5-4.7.2-1]
    let mut access = rules(&[("everybody", "all", "allow", "#"), ("everybody", "all", "allow", "+/x")]);
    let p = access.profile("alice", &[]);
    assert!(access.unrestricted(p));
    assert!(!access.may_read(p, "alice", "t", "$SYS/x"));
    assert!(!access.may_subscribe(p, "alice", "t", "$SYS/#"));
    assert!(!access.may_subscribe(p, "alice", "t", "$SYS/x"));
    let mut access = rules(&[("everybody", "all", "deny", "$SYS/#"), ("everybody", "all", "allow", "+/#")]);
    let p = access.profile("alice", &[]);
    assert!(access.unrestricted(p), "a rule about dollar topics restricts no others");
    assert!(access.may_subscribe(p, "alice", "t", "#"));
}

/// A small generator (splitmix64): the same seed makes the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
    fn path(&mut self, of: &[&str], rest: &str) -> String {
        let mut levels: Vec<&str> = (0..=self.below(3)).map(|_| self.pick(of)).collect();
        if self.below(3) == 0 && !rest.is_empty() {
            levels.push(rest);
        }
        if self.below(12) == 0 && !rest.is_empty() { rest.to_owned() } else { levels.join("/") }
    }
}

/// The rule of topic matching, written as the specification tells it.
fn naive_matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        ([f, filter @ ..], [t, topic @ ..]) if *f == "+" || f == t => naive_matches(filter, topic),
        _ => false,
    }
}

fn naive(filter: &str, topic: &str) -> bool {
    let is_wild = filter.starts_with(['+', '#']);
    let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    !(is_wild && topic.starts_with('$')) && naive_matches(&f, &t)
}

#[test]
fn random_rules_agree_with_a_naive_model() {
    // Every topic of up to four levels over this alphabet; "z" stands for a word no pattern or filter mentions.
    let alphabet = ["a", "al", "t1", "$S", "z"];
    let mut topics: Vec<String> = alphabet.iter().map(|&l| l.to_owned()).collect();
    let mut last = topics.clone();
    for _ in 0..4 {
        last = last.iter().flat_map(|t| alphabet.map(|l| format!("{t}/{l}"))).collect();
        topics.extend(last.iter().cloned());
    }
    let mut random = Random(1);
    let (mut granted, mut covered) = (0, 0);
    for round in 0..60 {
        let mut texts = vec![];
        for _ in 0..=random.below(3) {
            let effect = random.pick(&["allow", "deny", "allow"]);
            texts.push((effect, random.path(&["a", "+", "%a", "%t", "$S", "%%a"], "#")));
        }
        let mut access = Access::new(
            texts.iter().map(|(effect, text)| Rule::parse("everybody", "all", effect, text).unwrap()).collect(),
        );
        let p = access.profile("al", &[]);
        let plain: Vec<(&str, String)> = texts
            .iter()
            .map(|(e, t)| (*e, t.replace("%%", "\u{1}").replace("%a", "al").replace("%t", "t1").replace('\u{1}', "%")))
            .collect();
        let model = |topic: &str| plain.iter().find(|(_, f)| naive(f, topic)).is_some_and(|(e, _)| *e == "allow");
        for topic in &topics {
            assert_eq!(access.may_read(p, "al", "t1", topic), model(topic), "round {round}: {texts:?} {topic}");
            assert_eq!(access.may_publish(p, "al", "t1", topic), model(topic), "round {round}: {texts:?} {topic}");
            if access.unrestricted(p) && !topic.starts_with('$') {
                assert!(model(topic), "round {round}: {texts:?} {topic}");
            }
        }
        for _ in 0..10 {
            let filter = random.path(&["a", "+", "al", "t1", "$S", "z"], "#");
            let of_filter: Vec<&String> = topics.iter().filter(|t| naive(&filter, t)).collect();
            // The first rule that matches every topic the filter does, decides.
            let expect = plain.iter().find(|(_, f)| of_filter.iter().all(|t| naive(f, t)));
            let may = access.may_subscribe(p, "al", "t1", &filter);
            covered += usize::from(expect.is_some());
            granted += usize::from(may);
            assert_eq!(may, expect.is_some_and(|(e, _)| *e == "allow"), "round {round}: {texts:?} {filter}");
        }
    }
    assert!(granted > 40 && covered > granted, "the run must have met both answers: {granted} of {covered}");
}

#[test]
fn patterns_without_substitutions_are_topic_filters() {
    use parlor_protocol::topic::{covers, matches};
    let mut random = Random(2);
    let (mut matching, mut covering) = (0, 0);
    for _ in 0..20_000 {
        let words = ["a", "b", "+", "$S", ""];
        let (pattern, filter) = (random.path(&words, "#"), random.path(&words, "#"));
        let topic = random.path(&["a", "b", "$S", ""], "");
        if pattern.is_empty() || filter.is_empty() || topic.is_empty() {
            continue;
        }
        let mut access = rules(&[("everybody", "all", "allow", &pattern)]);
        let p = access.profile("alice", &[]);
        assert_eq!(access.may_read(p, "alice", "t", &topic), matches(&pattern, &topic), "{pattern} {topic}");
        // Of these two, which mean the same, the codec sees only that the second covers the first.
        if (pattern.as_str(), filter.as_str()) != ("+/#", "#") {
            let may = access.may_subscribe(p, "alice", "t", &filter);
            assert_eq!(may, covers(&pattern, &filter), "{pattern} {filter}");
        }
        matching += usize::from(matches(&pattern, &topic));
        covering += usize::from(covers(&pattern, &filter));
    }
    assert!(matching > 500 && covering > 500, "the run must have met both answers: {matching} {covering}");
}
