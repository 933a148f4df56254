//! `hypot` for programs that run where glibc is older than where they were linked. glibc 2.35 gave both functions a new version, and a
//! program that takes it starts nowhere else: RHEL 9 has 2.34. Everything else here asks for 2.34 at most. What crates call for pictures
//! is found here instead.

#![expect(unsafe_code, reason = "only a name that is not mangled is found by the linker; nothing else here has it")]

#[unsafe(no_mangle)]
extern "C" fn hypot(x: f64, y: f64) -> f64 {
    libm::hypot(x, y)
}

#[unsafe(no_mangle)]
extern "C" fn hypotf(x: f32, y: f32) -> f32 {
    libm::hypotf(x, y)
}
