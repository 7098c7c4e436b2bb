//! The `parlor` program.
fn main() {
    let mut sources = parlor::config::Sources::default();
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "serve" => {}
            "--listen" => sources.listen.push(args.next().unwrap_or_default()),
            "--allow-anonymous" => sources.set("--allow-anonymous", "auth.allow_anonymous", "true"),
            "--data" => sources.set("--data", "data", &args.next().unwrap_or_default()),
            "--set" => sources.set_pair(&args.next().unwrap_or_default()),
            _ => { args.next(); }
        }
    }
    let loaded = match sources.load() { Ok(l) => l, Err(e) => { eprintln!("{e}"); std::process::exit(2) } };
    for l in &loaded.config.listeners { eprintln!("listening on {}", l.url); }
    if let Err(e) = parlor::run(&loaded.config) { eprintln!("{e}"); std::process::exit(1) }
}
