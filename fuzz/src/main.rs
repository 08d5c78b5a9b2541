//! The fuzzer: libFuzzer's own `main`, for the target that `FUZZ_TARGET` names. Before the first input it writes the
//! target's seeds into the folder that `FUZZ_SEEDS` names, if any, so that libFuzzer finds them there.
//!
//! Run by `fuzz/run`, which builds it with counters (`fuzz/instrument`).

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use surrogate_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let chosen = choose();
        if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
            write_seeds(chosen, folder.as_ref());
        }
        CHOSEN.get_or_init(|| chosen);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            let _understood = (target.run)(data);
        }
    }
);

fn choose() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    surrogate_fuzz::target(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET={name:?}: there are {}", names.join(", "))
    })
}

fn write_seeds(target: &Target, folder: &Path) {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let path = folder.join(format!("seed-{number:03}"));
        std::fs::write(&path, seed).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}
