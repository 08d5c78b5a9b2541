//! `lab demo [--vm]`: Surrogate's main job, shown live. `lab clean`: removes what a killed run left. `lab echo
//! PORT`: what guests of the lab serve with.

mod demo;

use std::process::ExitCode;

use surrogate_house::{echo_server, namespace};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo"] => demo::with_namespaces(),
        ["demo", "--vm"] => demo::with_a_machine(),
        ["clean"] => {
            for name in namespace::sweep() {
                println!("removed {name}, which a killed run had left");
            }
            ExitCode::SUCCESS
        }
        ["echo", port] if port.parse::<u16>().is_ok() => {
            let error = echo_server::serve(port.parse().unwrap_or_default()).err();
            eprintln!("lab echo: {error:?}");
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("usage: lab demo [--vm] | lab clean | lab echo PORT");
            ExitCode::from(2)
        }
    }
}
