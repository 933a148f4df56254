//! What the machine can do: dense products, memory in use.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tch::{Device, Kind, Tensor};

/// Floating-point operations a second of libtorch's product at the shape that training is made of, best of several.
pub(crate) fn gemm_rate(threads: usize) -> Result<f64> {
    tch::set_num_threads(threads as i32);
    let on = (Kind::Float, Device::Cpu);
    let mut best = 0.0_f64;
    for (n, k, g) in [(128, 128, 2_000), (512, 128, 2_000)] {
        let (a, b) = (Tensor::rand([n, k], on), Tensor::rand([k, g], on));
        let out = Tensor::empty([n, g], on);
        for _ in 0..8 {
            let start = Instant::now();
            for _ in 0..50 {
                let _ = a.f_mm_out(&out, &b)?;
            }
            best = best.max(50.0 * 2.0 * (n * k * g) as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// Forgets the largest memory so far.
pub(crate) fn reset_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("failed to reset the peak of memory in use")
}

/// Largest memory in use since the last reset, MiB.
pub(crate) fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("failed to read the memory in use")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM among them")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Seconds of processors that this process's threads have taken.
pub(crate) fn processor_s() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").context("failed to list the threads")? {
        let times =
            std::fs::read_to_string(thread?.path().join("schedstat")).context("failed to read a thread's time")?;
        nanoseconds += times.split_whitespace().next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
