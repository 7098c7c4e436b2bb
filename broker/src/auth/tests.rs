use super::jwt::tests::{NOW_MS, config as jwt_config, hs256, token as jwt_token};
use super::password::tests::CHEAP;
use super::*;
use std::net::IpAddr;

const SECRET: &[u8] = b"an example of 32 bytes at least!";

fn authenticator(change: impl FnOnce(&mut AuthConfig)) -> Authenticator {
    let accounts = Accounts::default();
    let record = |groups: &[&str]| {
        let groups: Vec<String> = groups.iter().map(|&g| g.to_owned()).collect();
        make_record("correct horse", &groups, &CHEAP, 1).unwrap()
    };
    let name = |text| AccountName::parse(text).unwrap();
    accounts.insert(name("alice"), record(&["staff"]));
    accounts.insert(name("off"), AccountRecord { disabled: true, ..record(&[]) });
    accounts.insert(name("bare"), AccountRecord::default());
    let mut config = AuthConfig { passwords: CHEAP, ..AuthConfig::new(Secret::new([5; 32])) };
    change(&mut config);
    Authenticator::new(Arc::new(accounts), config).unwrap()
}

fn request() -> AuthRequest {
    AuthRequest {
        exchange: 1,
        step: AuthStep::Connect,
        client_id: "c".into(),
        username: None,
        password: None,
        method: None,
        data: vec![],
        certificate: None,
        peer: IpAddr::from([127, 0, 0, 1]),
        allow_anonymous: false,
    }
}

fn login(user: &str, password: &str) -> AuthRequest {
    AuthRequest { username: Some(user.into()), password: Some(password.into()), ..request() }
}

fn scram_first(user: &str) -> AuthRequest {
    AuthRequest { method: Some(SCRAM_METHOD.into()), data: format!("n,,n={user},r=abc").into_bytes(), ..request() }
}

fn scram_final(user: &str, server_first: &[u8], password: &str) -> (AuthRequest, String) {
    let (last, verifier) = scram::client::answer("n,,", &format!("n={user},r=abc"), server_first, password);
    let request = AuthRequest {
        step: AuthStep::Continue,
        method: Some(SCRAM_METHOD.into()),
        data: last.into_bytes(),
        ..request()
    };
    (request, verifier)
}

/// In one line: `account [groups]` or `reason label`.
fn summary(answer: &AuthAnswer) -> String {
    match answer {
        AuthAnswer::Accept { account, groups, .. } => format!("{account} {groups:?}"),
        AuthAnswer::Continue { .. } => "continue".into(),
        AuthAnswer::Refuse { reason, label, .. } => format!("{:02X} {label}", reason.0),
    }
}

#[track_caller]
fn check(auth: &Authenticator, request: &AuthRequest, expect: &str) {
    assert_eq!(summary(&auth.answer(request, NOW_MS)), expect);
}

fn data(answer: AuthAnswer) -> Vec<u8> {
    match answer {
        AuthAnswer::Continue { data } => data,
        other => panic!("{other:?}"),
    }
}

#[test]
fn passwords_let_in_and_nothing_is_downgraded() {
    let auth = authenticator(|_| {});
    let open = |r: AuthRequest| AuthRequest { allow_anonymous: true, ..r };
    check(&auth, &login("alice", "correct horse"), r#"alice ["staff"]"#);
    check(&auth, &login("alice", "correct hors"), "86 bad_password");
    check(&auth, &login("nobody", "correct horse"), "86 unknown_account");
    check(&auth, &login("Alice", "correct horse"), "86 unknown_account");
    check(&auth, &login("anonymous", "correct horse"), "86 unknown_account");
    check(&auth, &login("bare", "correct horse"), "86 bad_password");
    check(&auth, &login("off", "correct horse"), "87 disabled_account");
    check(&auth, &login("off", "wrong"), "86 bad_password");
    check(&auth, &login("alice", ""), "86 no_password");
    check(&auth, &login("", "correct horse"), "86 no_user_name");
    check(&auth, &request(), "87 no_credentials");
    check(&auth, &open(request()), "anonymous []");
    check(&auth, &open(login("", "")), "anonymous []");
    check(&auth, &open(login("alice", "wrong")), "86 bad_password");
    check(&auth, &open(AuthRequest { username: Some("x".into()), ..request() }), "86 no_password");
}

#[test]
fn refusals_tell_the_client_the_same_whatever_was_wrong() {
    let auth = authenticator(|_| {});
    let told = |r: &AuthRequest| match auth.answer(r, NOW_MS) {
        AuthAnswer::Refuse { reason, text, .. } => (reason, text),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&login("alice", "wrong")), told(&login("nobody", "wrong")));
    assert_eq!(told(&login("alice", "wrong")), told(&login("bare", "wrong")));
    assert_eq!(told(&login("alice", "wrong")), told(&login("off", "wrong")));
}

#[test]
fn a_verified_password_needs_no_hash_until_it_changes() {
    let auth = authenticator(|_| {});
    let good = login("alice", "correct horse");
    assert_eq!(auth.answer_quickly(&good, NOW_MS), None);
    check(&auth, &good, r#"alice ["staff"]"#);
    assert_eq!(summary(&auth.answer_quickly(&good, NOW_MS).unwrap()), r#"alice ["staff"]"#);
    assert_eq!(auth.answer_quickly(&login("alice", "wrong horse"), NOW_MS), None);
    let mut record = (*auth.accounts().get("alice").unwrap()).clone();
    record.disabled = true;
    auth.accounts().insert(AccountName::parse("alice").unwrap(), record.clone());
    check(&auth, &good, "87 disabled_account");
    record.disabled = false;
    set_password(&mut record, "another horse", &CHEAP).unwrap();
    auth.accounts().insert(AccountName::parse("alice").unwrap(), record);
    assert_eq!(auth.answer_quickly(&good, NOW_MS), None);
    check(&auth, &good, "86 bad_password");
    check(&auth, &login("alice", "another horse"), r#"alice ["staff"]"#);
    auth.accounts().remove("alice");
    check(&auth, &login("alice", "another horse"), "86 unknown_account");
}

#[test]
fn guessing_is_slowed_down_and_then_forgiven() {
    let auth = authenticator(|c| c.slowdown.pair_free = 2);
    for user in ["alice", "nobody"] {
        let mut answers = vec![];
        for _ in 0..4 {
            answers.push(summary(&auth.answer(&login(user, "wrong"), NOW_MS)));
        }
        assert!(answers[..3].iter().all(|a| a.starts_with("86")), "{answers:?}");
        assert_eq!(answers[3], "9F slowed_down", "{user}");
    }
    // The right password must wait as well at this address, or guessing would go on; elsewhere it need not.
    check(&auth, &login("alice", "correct horse"), "9F slowed_down");
    let elsewhere = AuthRequest { peer: IpAddr::from([10, 0, 0, 9]), ..login("alice", "correct horse") };
    check(&auth, &elsewhere, r#"alice ["staff"]"#);
    check(&auth, &scram_first("alice"), "9F slowed_down");
    let later = auth.answer(&login("alice", "correct horse"), NOW_MS + 1_000);
    assert_eq!(summary(&later), r#"alice ["staff"]"#);
}

#[test]
fn tokens_stand_for_their_subject() {
    let auth = authenticator(|c| c.jwt = Some(jwt_config(SECRET)));
    let token = |claims: &str| hs256(SECRET, claims);
    let alice = token(r#"{"sub":"alice","exp":1700000001}"#);
    check(&auth, &login("alice", &alice), r#"alice ["staff"]"#);
    check(&auth, &login("", &alice), r#"alice ["staff"]"#);
    check(&auth, &AuthRequest { username: None, ..login("", &alice) }, r#"alice ["staff"]"#);
    check(&auth, &login("bob", &alice), "86 other_name");
    let answer = auth.answer(&login("", &token(r#"{"sub":"new","exp":1700000001,"groups":["g"]}"#)), NOW_MS);
    assert_eq!(
        answer,
        AuthAnswer::Accept {
            account: "new".into(),
            groups: vec!["g".into()],
            expires_at_ms: Some(1_700_000_001_000),
            data: None
        }
    );
    check(&auth, &login("alice", &token(r#"{"sub":"alice","exp":1700000001,"groups":[]}"#)), "alice []");
    check(&auth, &login("", &token(r#"{"sub":"alice","exp":1700000000}"#)), "87 expired_token");
    check(&auth, &login("", &token(r#"{"sub":"off","exp":1700000001}"#)), "87 disabled_account");
    check(&auth, &login("", &hs256(b"other", r#"{"sub":"alice","exp":1700000001}"#)), "86 bad_token");
    let open = AuthRequest { allow_anonymous: true, ..login("", &hs256(b"other", "{}")) };
    check(&auth, &open, "86 bad_token");
    check(&auth, &login("alice", "correct horse"), r#"alice ["staff"]"#);
    let mut config = AuthConfig::new(Secret::new([5; 32]));
    config.jwt = Some(JwtConfig { accounts: UnknownAccounts::Refuse, ..jwt_config(SECRET) });
    auth.reload(config.clone());
    check(&auth, &login("", &token(r#"{"sub":"new","exp":1700000001}"#)), "86 bad_token");
    check(&auth, &login("", &alice), r#"alice ["staff"]"#);
    auth.reload(AuthConfig { jwt: None, passwords: CHEAP, ..config });
    check(&auth, &login("alice", &alice), "86 bad_password");
}

#[test]
fn certificates_stand_for_their_account() {
    let auth = authenticator(|_| {});
    let by = |name: &str| AuthRequest { certificate: Some(name.into()), ..request() };
    check(&auth, &by("alice"), r#"alice ["staff"]"#);
    check(&auth, &by("bare"), "bare []");
    check(&auth, &by("off"), "87 disabled_account");
    check(&auth, &by("nobody"), "87 unknown_certificate");
    check(&auth, &AuthRequest { allow_anonymous: true, ..by("nobody") }, "87 unknown_certificate");
    check(&auth, &AuthRequest { username: Some("alice".into()), ..by("alice") }, r#"alice ["staff"]"#);
    check(&auth, &AuthRequest { username: Some("bare".into()), ..by("alice") }, "86 other_name");
    check(&auth, &AuthRequest { certificate: Some("bare".into()), ..scram_first("alice") }, "86 other_name");
    check(&auth, &AuthRequest { certificate: Some("alice".into()), ..scram_first("alice") }, "continue");
    auth.reload(AuthConfig { certificates: UnknownAccounts::Accept, ..AuthConfig::new(Secret::new([5; 32])) });
    check(&auth, &by("nobody"), "nobody []");
    check(&auth, &by("anonymous"), "87 unknown_certificate");
}

#[test]
fn scram_proves_both_sides() {
    let auth = authenticator(|_| {});
    for first in [scram_first("alice"), AuthRequest { username: Some("alice".into()), ..scram_first("alice") }] {
        let server_first = data(auth.answer(&first, NOW_MS));
        let (last, verifier) = scram_final("alice", &server_first, "correct horse");
        assert_eq!(
            auth.answer(&last, NOW_MS),
            AuthAnswer::Accept {
                account: "alice".into(),
                groups: vec!["staff".into()],
                expires_at_ms: None,
                data: Some(verifier.into_bytes())
            }
        );
        check(&auth, &last, "86 bad_scram");
    }
    assert!(auth.exchanges().is_empty());
}

#[test]
fn scram_refuses_what_does_not_fit() {
    let auth = authenticator(|c| c.slowdown.pair_free = 100);
    let run = |user: &str, password: &str| {
        let server_first = data(auth.answer(&scram_first(user), NOW_MS));
        let (last, _) = scram_final(user, &server_first, password);
        summary(&auth.answer(&last, NOW_MS))
    };
    assert_eq!(run("alice", "wrong horse"), "86 bad_scram");
    assert_eq!(run("nobody", "correct horse"), "86 unknown_account");
    assert_eq!(run("bare", "correct horse"), "86 unknown_account");
    assert_eq!(run("off", "correct horse"), "87 disabled_account");
    assert_eq!(run("off", "wrong"), "86 bad_scram");
    check(&auth, &AuthRequest { username: Some("bare".into()), ..scram_first("alice") }, "86 other_name");
    check(&auth, &AuthRequest { data: b"p=tls-unique,,n=alice,r=abc".to_vec(), ..scram_first("") }, "86 bad_scram");
    check(&auth, &AuthRequest { method: Some("SCRAM-SHA-1".into()), ..scram_first("alice") }, "8C bad_method");
    check(&auth, &AuthRequest { step: AuthStep::Continue, ..scram_first("alice") }, "86 bad_scram");
    // A password changed between the two messages.
    let server_first = data(auth.answer(&scram_first("alice"), NOW_MS));
    let mut record = (*auth.accounts().get("alice").unwrap()).clone();
    set_password(&mut record, "another horse", &CHEAP).unwrap();
    auth.accounts().insert(AccountName::parse("alice").unwrap(), record);
    check(&auth, &scram_final("alice", &server_first, "correct horse").0, "86 unknown_account");
    // A connection that ended.
    let server_first = data(auth.answer(&scram_first("alice"), NOW_MS));
    auth.forget(1);
    check(&auth, &scram_final("alice", &server_first, "another horse").0, "86 bad_scram");
}

#[test]
fn scram_guesses_are_counted_across_exchanges() {
    let auth = authenticator(|c| c.slowdown.pair_free = 2);
    // Exchanges begun before the failures are held back as well.
    let begun: Vec<_> =
        (0..5).map(|exchange| data(auth.answer(&AuthRequest { exchange, ..scram_first("alice") }, NOW_MS))).collect();
    let answers: Vec<_> = (0..5)
        .zip(&begun)
        .map(|(exchange, first)| {
            let (last, _) = scram_final("alice", first, "wrong horse");
            summary(&auth.answer(&AuthRequest { exchange, ..last }, NOW_MS))
        })
        .collect();
    assert_eq!(answers, ["86 bad_scram", "86 bad_scram", "86 bad_scram", "9F slowed_down", "9F slowed_down"]);
}

#[test]
fn unknown_accounts_have_lasting_salts_like_known_ones() {
    let first_of = |auth: &Authenticator, user: &str| {
        let text = String::from_utf8(data(auth.answer(&scram_first(user), NOW_MS))).unwrap();
        let (nonce, rest) = text.split_once(',').unwrap();
        (nonce.to_owned(), rest.to_owned())
    };
    let auth = authenticator(|_| {});
    let (nonce, nobody) = first_of(&auth, "nobody");
    let (other_nonce, again) = first_of(&auth, "nobody");
    assert_ne!(nonce, other_nonce);
    assert!(nonce.starts_with("r=abc") && nonce.len() == other_nonce.len());
    assert_eq!(nobody, again);
    assert_ne!(nobody, first_of(&auth, "nobodx").1);
    assert_eq!(nobody, first_of(&authenticator(|_| {}), "nobody").1, "a restart changes nothing");
    assert_eq!(nobody.len(), first_of(&auth, "alice").1.len());
    assert_ne!(nobody, first_of(&authenticator(|c| c.salt_secret = Secret::new([6; 32])), "nobody").1);
}

#[test]
fn the_first_scram_message_may_come_after_connect() {
    let auth = authenticator(|_| {});
    let empty = AuthRequest { data: vec![], username: Some("alice".into()), ..scram_first("") };
    assert_eq!(data(auth.answer(&empty, NOW_MS)), b"");
    let server_first = data(auth.answer(&AuthRequest { step: AuthStep::Continue, ..scram_first("alice") }, NOW_MS));
    check(&auth, &scram_final("alice", &server_first, "correct horse").0, r#"alice ["staff"]"#);
    assert_eq!(data(auth.answer(&empty, NOW_MS)), b"");
    check(&auth, &AuthRequest { step: AuthStep::Continue, ..scram_first("bare") }, "86 other_name");
}

#[test]
fn re_authentication_needs_scram_and_is_refused_with_a_code_disconnect_knows() {
    let auth = authenticator(|_| {});
    let again = || AuthRequest { step: AuthStep::ReAuthenticate, ..scram_first("alice") };
    let server_first = data(auth.answer(&again(), NOW_MS));
    check(&auth, &scram_final("alice", &server_first, "correct horse").0, r#"alice ["staff"]"#);
    check(&auth, &AuthRequest { method: None, ..again() }, "8C bad_method");
    check(&auth, &AuthRequest { method: Some("X".into()), ..again() }, "8C bad_method");
    check(&auth, &AuthRequest { data: b"x".to_vec(), ..again() }, "87 bad_scram");
    let server_first = data(auth.answer(&again(), NOW_MS));
    check(&auth, &scram_final("alice", &server_first, "wrong horse").0, "87 bad_scram");
    let later = AuthRequest { step: AuthStep::ReAuthenticate, ..scram_first("nobody") };
    let server_first = data(auth.answer(&later, NOW_MS));
    check(&auth, &scram_final("nobody", &server_first, "correct horse").0, "87 unknown_account");
}

#[test]
fn exchanges_are_bounded() {
    let auth = authenticator(|_| {});
    let first = |exchange| AuthRequest { exchange, ..scram_first("alice") };
    for exchange in 0..EXCHANGES_MAX as u64 {
        let pending = Pending { step: AuthStep::Connect, expected: None, begun: None };
        auth.wait(exchange, pending, vec![]);
    }
    check(&auth, &first(u64::MAX), "89 busy");
    check(&auth, &first(0), "continue");
    auth.forget(7);
    check(&auth, &first(u64::MAX), "continue");
}

/// An authenticator with a place for the key of connect tokens, and that place.
fn issuing(name: &str) -> (Authenticator, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("parlor-tokens-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    (Authenticator { tokens: ConnectTokens::open(path.clone()).unwrap(), ..authenticator(|_| ()) }, path)
}

fn wish(account: &str) -> TokenWish {
    TokenWish { account: account.into(), ttl_secs: 60, groups: None }
}

fn token_of(auth: &Authenticator, wish: &TokenWish) -> String {
    auth.issue_token(wish, NOW_MS).unwrap().token.reveal().clone()
}

#[test]
fn connect_tokens_let_their_account_in_until_they_expire() {
    use std::os::unix::fs::PermissionsExt;
    let (auth, path) = issuing("expiry");
    assert!(!path.exists(), "the key is made with the first token");
    let issued = auth.issue_token(&wish("alice"), NOW_MS).unwrap();
    assert_eq!(issued.expires_at_ms, NOW_MS + 60_000);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = issued.token.reveal();
    let at = |user: &str, token: &str, now_ms| summary(&auth.answer_quickly(&login(user, token), now_ms).unwrap());
    assert_eq!(at("alice", token, NOW_MS), r#"alice ["staff"]"#);
    assert_eq!(at("", token, NOW_MS + 59_999), r#"alice ["staff"]"#);
    assert_eq!(at("alice", token, NOW_MS + 60_000), "87 expired_token");
    assert_eq!(at("off", token, NOW_MS), "86 other_name");
    let grouped = TokenWish { groups: Some(vec!["guests".into()]), ..wish("alice") };
    assert_eq!(at("alice", &token_of(&auth, &grouped), NOW_MS), r#"alice ["guests"]"#);
    assert_eq!(auth.token_account(token, NOW_MS).as_deref(), Some("alice"));
    assert_eq!(auth.token_account(token, NOW_MS + 60_000), None);
    // The key outlives the process.
    let again = Authenticator { tokens: ConnectTokens::open(path.clone()).unwrap(), ..authenticator(|_| ()) };
    let record = auth.accounts().get("alice").unwrap();
    again.accounts().insert(AccountName::parse("alice").unwrap(), (*record).clone());
    assert_eq!(again.token_account(token, NOW_MS).as_deref(), Some("alice"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn connect_tokens_are_not_issued_to_everybody() {
    let (auth, path) = issuing("wishes");
    let refused = |wish: TokenWish| auth.issue_token(&wish, NOW_MS).unwrap_err();
    assert!(matches!(refused(wish("nobody")), IssueError::NoAccount(_)));
    assert!(matches!(refused(wish("off")), IssueError::Disabled));
    auth.accounts().insert(AccountName::parse_stored("me").unwrap(), AccountRecord::default());
    assert!(matches!(refused(wish("me")), IssueError::NoAccount(_)));
    for ttl_secs in [0, TOKEN_TTL_MAX_SECS + 1] {
        assert!(matches!(refused(TokenWish { ttl_secs, ..wish("alice") }), IssueError::Ttl));
    }
    for groups in [vec!["a b".to_owned()], vec!["g".to_owned(); 65]] {
        assert!(matches!(refused(TokenWish { groups: Some(groups), ..wish("alice") }), IssueError::Groups));
    }
    assert!(!path.exists());
    assert!(matches!(authenticator(|_| ()).issue_token(&wish("alice"), NOW_MS), Err(IssueError::Key { .. })));
}

#[test]
fn connect_tokens_are_revoked_with_the_password_or_by_order() {
    let (auth, path) = issuing("revoked");
    let token = token_of(&auth, &wish("alice"));
    let alice = AccountName::parse("alice").unwrap();
    let answer = |token: &str| summary(&auth.answer_quickly(&login("alice", token), NOW_MS).unwrap());
    for change in [revoke_tokens, |record: &mut AccountRecord| set_password(record, "battery staple", &CHEAP)] {
        let token = token_of(&auth, &wish("alice"));
        assert!(answer(&token).starts_with("alice"));
        let mut record = (*auth.accounts().get("alice").unwrap()).clone();
        change(&mut record).unwrap();
        auth.accounts().insert(alice.clone(), record);
        assert_eq!(answer(&token), "87 revoked_token");
    }
    // A new account of the same name does not take those of the old one.
    let fresh = make_record("correct horse", &[], &CHEAP, 1).unwrap();
    auth.accounts().insert(alice.clone(), fresh.clone());
    assert_eq!(answer(&token), "87 revoked_token");
    let token = token_of(&auth, &wish("alice"));
    auth.accounts().insert(alice, AccountRecord { disabled: true, ..fresh });
    assert_eq!(answer(&token), "87 disabled_account");
    auth.accounts().remove("alice");
    assert_eq!(answer(&token), "86 bad_token");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn connect_tokens_are_held_against_their_own_key_only() {
    let (auth, path) = issuing("keys");
    let genuine = token_of(&auth, &wish("alice"));
    let epoch = auth.accounts().get("alice").unwrap().token_epoch;
    let claims = format!(r#"{{"iss":"parlor","sub":"alice","exp":4102444800,"epoch":{epoch}}}"#);
    let with = |header: &str, key: &[u8]| {
        jwt_token(header, &claims, |text| {
            ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text).as_ref().to_vec()
        })
    };
    let key = std::fs::read(&path).unwrap();
    let answer = |auth: &Authenticator, token: &str| summary(&auth.answer(&login("alice", token), NOW_MS));
    let header = r#"{"alg":"HS256","kid":"parlor-connect"}"#;
    assert!(answer(&auth, &with(header, &key)).starts_with("alice"), "the forger has the key");
    assert_eq!(answer(&auth, &with(header, b"another key")), "86 bad_token");
    for algorithm in ["none", "EdDSA", "RS256", "HS384", "hs256", ""] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"parlor-connect"}}"#);
        assert_eq!(answer(&auth, &with(&header, &key)), "86 bad_token", "{algorithm}");
    }
    let (head, signature) = genuine.rsplit_once('.').unwrap();
    assert_eq!(answer(&auth, &format!("{head}.")), "86 bad_token");
    let other = with(header, b"x");
    assert_eq!(answer(&auth, &format!("{}.{signature}", other.rsplit_once('.').unwrap().0)), "86 bad_token");
    // Whoever has the key of configured tokens cannot make one of these, and one of these is not held against that key.
    let configured = |c: &mut AuthConfig| c.jwt = Some(jwt_config(SECRET));
    let tokens = ConnectTokens::open(path.clone()).unwrap();
    let both = Authenticator { tokens, ..authenticator(configured) };
    assert_eq!(answer(&both, &with(header, SECRET)), "86 bad_token");
    assert_eq!(answer(&both, &with(r#"{"alg":"HS256"}"#, &key)), "86 bad_token");
    assert!(answer(&both, &with(r#"{"alg":"HS256"}"#, SECRET)).starts_with("alice"), "a configured one needs no epoch");
    assert_eq!(both.token_account(&with(r#"{"alg":"HS256"}"#, SECRET), NOW_MS), None);
    // Where none was ever issued, none can be right.
    assert_eq!(answer(&authenticator(|_| ()), &with(header, &[0; 32])), "86 bad_token");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_reserved_name_from_an_earlier_version_does_not_log_in() {
    let auth = authenticator(|_| ());
    let record = make_record("correct horse", &[], &CHEAP, 1).unwrap();
    auth.accounts().insert(AccountName::parse_stored("g-home").unwrap(), record);
    assert_eq!(summary(&auth.answer(&login("g-home", "correct horse"), NOW_MS)), "87 reserved_name");
}

#[test]
fn wrong_pairing_codes_are_slowed_down_by_address() {
    let auth = authenticator(|_| ());
    let (guesser, other) = (IpAddr::from([127, 0, 0, 9]), IpAddr::from([127, 0, 0, 8]));
    for _ in 0..6 {
        assert_eq!(auth.pairing_wait_ms(guesser, NOW_MS), 0);
        auth.pairing_failed(guesser, NOW_MS);
    }
    assert_eq!(auth.pairing_wait_ms(guesser, NOW_MS), 500);
    assert_eq!(auth.pairing_wait_ms(other, NOW_MS), 0);
}

#[test]
fn the_salt_secret_is_made_once() {
    let directory = std::env::temp_dir().join(format!("parlor-auth-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("salts.key");
    let first = salt_secret(&path).unwrap();
    assert_ne!(first.reveal(), &[0; 32]);
    assert!(salt_secret(&path).unwrap() == first);
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
    std::fs::write(&path, b"cut short").unwrap();
    assert!(salt_secret(&path).unwrap() != first);
    assert!(salt_secret(&directory).is_err());
    std::fs::remove_dir_all(&directory).unwrap();
}
