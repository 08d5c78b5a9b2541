//! `lab demo [--vm]`: Surrogate's main job, shown live. `lab clean`: removes what a killed run left.

mod demo;

use std::process::ExitCode;

use surrogate_house::namespace;

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
        _ => {
            eprintln!("usage: lab demo [--vm] | lab clean");
            ExitCode::from(2)
        }
    }
}
