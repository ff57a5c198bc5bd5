//! As whom a program runs, and what the kernel refuses it.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// How the programs of a host are confined.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    /// Run as this user and group, with no other group; `None`: as the test itself runs.
    pub user: Option<u32>,
    /// `io_uring_setup` fails with EPERM, as in most containers.
    pub forbid_io_uring: bool,
}

/// An ordinary user who owns nothing on a Debian system ("nobody").
pub const NOBODY: u32 = 65534;

impl Sandbox {
    /// If the tests run as root, somebody else.
    pub fn ordinary_user() -> Self {
        let user = rustix::process::geteuid().is_root().then_some(NOBODY);
        Self { user, forbid_io_uring: false }
    }

    /// As the tests themselves run.
    pub fn none() -> Self {
        Self { user: None, forbid_io_uring: false }
    }

    /// Applies it to what is going to be started.
    pub fn confine(self, command: &mut Command) {
        if let Some(user) = self.user {
            // The standard library also drops the supplementary groups.
            command.uid(user).gid(user);
        }
        if self.forbid_io_uring {
            let filter = no_io_uring();
            // SAFETY: prctl is allowed between fork and exec, and nothing is allocated there.
            unsafe { command.pre_exec(move || install(&filter)) };
        }
    }
}

type Filter = [libc::sock_filter; 4];

fn no_io_uring() -> Filter {
    let op = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let setup = libc::SYS_io_uring_setup as u32;
    [
        // The number of the system call is the first word of the data.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn install(filter: &Filter) -> std::io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        // The kernel reads it only.
        filter: filter.as_ptr().cast_mut(),
    };
    let (on, mode) = (1 as libc::c_ulong, libc::c_ulong::from(libc::SECCOMP_MODE_FILTER));
    let zero = 0 as libc::c_ulong;
    // SAFETY: the program and the filter it points to outlive the calls.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, zero, zero, zero) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
