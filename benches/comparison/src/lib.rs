//! Shared code of the benchmarks, which compare two servers: processes, gRPC clients and figures.
//!
//! The benchmarks themselves define the measures.

pub mod figures;
pub mod grpc;
pub mod machine;
pub mod process;
