import Foundation
import Synchronization

/// A process that never outlives this one: it is started through `setpriv --pdeathsig KILL`, inherits no
/// descriptor but its three standard ones, and writes what it says into a file.
package final class ChildProcess: Sendable {
    /// How a process ended.
    package enum Ending: Equatable, Sendable, CustomStringConvertible {
        case exited(Int32)
        case signalled(Int32)

        package var description: String {
            switch self {
            case .exited(let status): "exit status \(status)"
            case .signalled(let signal): "signal \(signal)"
            }
        }
    }

    package let pid: pid_t
    /// Standard error, and standard output unless it has a file of its own.
    package let logPath: String
    private let ending = Mutex<Ending?>(nil)

    /// Starts `executable`; output is appended to `log`.
    ///
    /// - Parameter output: a file for standard output alone.
    /// - Throws: `WorkbenchError` when there is nothing to start.
    package init(_ executable: String, _ arguments: [String], log: String, output: String? = nil) throws {
        guard access(executable, X_OK) == 0 else {
            throw WorkbenchError("\(executable) is not there, or not executable")
        }
        let words = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", executable] + arguments
        let result = Nursery.shared.spawn(words, log: log, output: output)
        guard result.status == 0 else {
            throw WorkbenchError("cannot start \(executable): \(String(cString: strerror(result.status)))")
        }
        pid = result.pid
        logPath = log
    }

    /// Runs `executable` to its end, waiting at most `seconds`.
    ///
    /// - Returns: how it ended, nil when it had to be killed, and all it wrote, errors included.
    /// - Throws: `WorkbenchError` when there is nothing to start.
    package static func run(_ executable: String, _ arguments: [String], seconds: Double = 60) throws -> (
        ending: Ending?, text: String
    ) {
        let log = NSTemporaryDirectory() + "/tidegate-child-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        defer { unlink(log) }
        let child = try ChildProcess(executable, arguments, log: log)
        let ending = child.ended(within: seconds)
        return (ending, child.log)
    }

    deinit { kill() }

    package var isRunning: Bool { poll() == nil }

    package func send(_ signal: Int32) {
        // The lock keeps the process from being reaped, and its number reused, in between.
        ending.withLock { if $0 == nil { _ = Glibc.kill(pid, signal) } }
    }

    /// SIGKILL; returns once the process is gone.
    package func kill() {
        send(SIGKILL)
        waitUpTo(10) { poll() != nil }
    }

    /// How it ended, waiting at most `seconds`; nil when it still runs.
    package func ended(within seconds: Double) -> Ending? {
        waitUpTo(seconds) { poll() != nil }
        return poll()
    }

    /// All it wrote so far.
    package var log: String { Workplace.text(of: logPath) }

    private func poll() -> Ending? {
        ending.withLock { known in
            if known != nil { return known }
            var status: Int32 = 0
            guard waitpid(pid, &status, WNOHANG) == pid else { return nil }
            let signal = status & 0x7f
            known = signal == 0 ? .exited((status >> 8) & 0xff) : .signalled(signal)
            return known
        }
    }
}

/// The one thread that gives birth to processes.
///
/// The kernel delivers the parent-death signal when the *thread* that forked ends, so a child must not be
/// started from a pool's thread, which may retire before the process does.
private final class Nursery: Sendable {
    static let shared = Nursery()

    private struct Order: Sendable {
        let words: [String]
        let log: String
        let output: String?
        let answer: Answer
    }

    private final class Answer: Sendable {
        let value = Mutex<(status: Int32, pid: pid_t)?>(nil)
        let ready = DispatchSemaphore(value: 0)
    }

    private let orders = Mutex<[Order]>([])
    private let waiting = DispatchSemaphore(value: 0)

    private init() {
        Thread.detachNewThread { [self] in
            while true {
                waiting.wait()
                let order = orders.withLock { $0.removeFirst() }
                let result = Self.start(order)
                order.answer.value.withLock { $0 = result }
                order.answer.ready.signal()
            }
        }
    }

    func spawn(_ words: [String], log: String, output: String?) -> (status: Int32, pid: pid_t) {
        let answer = Answer()
        orders.withLock { $0.append(Order(words: words, log: log, output: output, answer: answer)) }
        waiting.signal()
        answer.ready.wait()
        return answer.value.withLock { $0 } ?? (ECHILD, 0)
    }

    private static func start(_ order: Order) -> (status: Int32, pid: pid_t) {
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        let writing = O_WRONLY | O_CREAT | O_APPEND
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&files, 1, order.output ?? order.log, writing, 0o600)
        posix_spawn_file_actions_addopen(&files, 2, order.log, writing, 0o600)
        // A socket of ours held open by a child would not close when we close it.
        // Some spare ones are closed too, for what other threads open meanwhile.
        for descriptor in 3..<(highestDescriptor() + 256) {
            posix_spawn_file_actions_addclose(&files, descriptor)
        }

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        // Its own process group: Ctrl-C in a terminal is ours to answer.
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETPGROUP))

        var arguments: [UnsafeMutablePointer<CChar>?] = order.words.map { strdup($0) }
        defer { arguments.forEach { free($0) } }
        arguments.append(nil)
        var pid: pid_t = 0
        let status = posix_spawn(&pid, order.words[0], &files, &attributes, arguments, environ)
        return (status, pid)
    }

    private static func highestDescriptor() -> Int32 {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        return names.compactMap { Int32($0) }.max() ?? 1023
    }
}
