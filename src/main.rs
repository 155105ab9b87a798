//! The `tidegate` command.

use std::process::ExitCode;

/// Allocations of many connections that come and go leave less behind than with the system's allocator
/// (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
