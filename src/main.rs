//! The `countersign` command.

fn main() -> std::process::ExitCode {
    countersign::cli::run()
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
