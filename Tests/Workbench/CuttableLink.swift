import Foundation
import Synchronization

/// The line between gateway and cloud: a TCP relay on 127.0.0.1 that can be cut.
///
/// One thread moves all bytes. Its port belongs to it for its whole life, also while the line is cut and
/// connecting to it is refused.
package final class CuttableLink: Sendable {
    package enum Direction: Sendable { case towardsTarget, fromTarget }

    private enum Mode: Equatable { case open, cut, blackHole }

    private struct Shared {
        var mode = Mode.open
        /// How often it was cut. The thread makes every cut good, also one that was over before it came to it.
        var cuts = 0
        var ended = false
        /// Bytes that may still pass before the line is cut; nil for no limit.
        var allowance: (direction: Direction, bytes: Int)?
        var bytesTowardsTarget = 0
        var bytesFromTarget = 0
        var connections = 0

        mutating func cut() {
            mode = .cut
            cuts += 1
            allowance = nil
        }
    }

    package let port: UInt16
    private let target: UInt16
    private let shared = Mutex(Shared())
    private let bell = Bell()
    private let finished = DispatchSemaphore(value: 0)

    /// Opens a line to 127.0.0.1:`target`.
    package init(to target: UInt16) throws {
        self.target = target
        port = FreePort.next()
        // Bound but never listening: it keeps the port ours while there is no listener.
        let holder = Self.boundSocket(port)
        guard holder >= 0 else { throw WorkbenchError("cannot bind 127.0.0.1:\(port)") }
        let thread = Thread { [self] in
            carry(holder: holder)
            finished.signal()
        }
        thread.name = "link"
        thread.start()
        let port = self.port
        guard waitUpTo(5, until: { Loopback.accepts(port) }) else {
            throw WorkbenchError("the link does not listen on \(port)")
        }
    }

    /// Resets every connection and refuses new ones. However soon `restore()` follows, none survives it.
    package func cut() { change { $0.cut() } }

    /// Lets everything pass again.
    package func restore() {
        change {
            $0.mode = .open
            $0.allowance = nil
        }
    }

    /// Connections stay, and new ones are made, but no byte moves until `restore()`.
    package func blackHole() { change { $0.mode = .blackHole } }

    /// Cuts after `bytes` more bytes, at least one, went in `direction`, be it in the middle of a packet.
    package func cut(after bytes: Int, _ direction: Direction) {
        precondition(bytes > 0, "a cut that waits for nothing is cut()")
        change { $0.allowance = (direction, bytes) }
    }

    package var isCut: Bool { shared.withLock { $0.mode == .cut } }
    package var bytesTowardsTarget: Int { shared.withLock { $0.bytesTowardsTarget } }
    package var bytesFromTarget: Int { shared.withLock { $0.bytesFromTarget } }
    /// Connections made to the target over the link's life.
    package var connections: Int { shared.withLock { $0.connections } }

    /// Closes everything; the thread has ended on return.
    package func end() {
        change { $0.ended = true }
        finished.wait()
        finished.signal()
    }

    private func change(_ body: (inout Shared) -> Void) {
        shared.withLock { body(&$0) }
        bell.ring()
    }

    // MARK: - The thread

    private struct Pair {
        let near: Int32
        let far: Int32
        var towardsTarget = Data()
        var fromTarget = Data()
        var nearEnded = false
        var farEnded = false
    }

    private func carry(holder: Int32) {
        var listener: Int32 = -1
        var pairs: [Pair] = []
        var cutsMade = 0
        defer {
            pairs.forEach(Self.reset)
            if listener >= 0 { close(listener) }
            close(holder)
        }
        while true {
            let (mode, cuts, ended) = shared.withLock { ($0.mode, $0.cuts, $0.ended) }
            if ended { return }
            if cutsMade != cuts {
                cutsMade = cuts
                pairs.forEach(Self.reset)
                pairs = []
                if listener >= 0 { close(listener) }
                listener = -1
            }
            if mode != .cut && listener < 0 {
                listener = Self.boundSocket(port)
                precondition(listener >= 0, "port \(port) is ours, and cannot be bound")
                listen(listener, 64)
            }
            var polled = [bell.pollEntry]
            if mode == .open {
                polled.append(pollfd(fd: listener, events: Int16(POLLIN), revents: 0))
                for pair in pairs {
                    polled.append(
                        Self.interest(pair.near, ended: pair.nearEnded, pair.towardsTarget, pair.fromTarget))
                    polled.append(
                        Self.interest(pair.far, ended: pair.farEnded, pair.fromTarget, pair.towardsTarget))
                }
            }
            poll(&polled, nfds_t(polled.count), 1000)
            bell.answer()
            guard mode == .open,
                shared.withLock({ $0.mode == .open && $0.cuts == cutsMade && !$0.ended })
            else { continue }
            pairs = pairs.compactMap { move($0) }
            if polled[1].revents != 0, let pair = accept(listener) { pairs.append(pair) }
        }
    }

    private static let bufferBytesMax = 256 * 1024

    private static func interest(_ fd: Int32, ended: Bool, _ incoming: Data, _ outgoing: Data) -> pollfd {
        var events: Int32 = 0
        if !ended && incoming.count < bufferBytesMax { events |= POLLIN }
        if !outgoing.isEmpty { events |= POLLOUT }
        // A descriptor nothing is wanted of would wake us for ever once its peer is gone.
        return pollfd(fd: events == 0 ? -1 : fd, events: Int16(events), revents: 0)
    }

    /// Moves what can be moved; nil when the connection is over.
    private func move(_ old: Pair) -> Pair? {
        var pair = old
        let alive =
            Self.fill(&pair.towardsTarget, from: pair.near, &pair.nearEnded)
            && Self.fill(&pair.fromTarget, from: pair.far, &pair.farEnded)
            && drain(&pair.towardsTarget, into: pair.far, .towardsTarget)
            && drain(&pair.fromTarget, into: pair.near, .fromTarget)
        guard alive else {
            Self.reset(pair)
            return nil
        }
        if (pair.nearEnded && pair.towardsTarget.isEmpty) || (pair.farEnded && pair.fromTarget.isEmpty) {
            close(pair.near)
            close(pair.far)
            return nil
        }
        return pair
    }

    private static func fill(_ buffer: inout Data, from fd: Int32, _ ended: inout Bool) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while !ended && buffer.count < bufferBytesMax {
            let count = recv(fd, &chunk, chunk.count, 0)
            if count > 0 {
                buffer.append(contentsOf: chunk[..<count])
            } else if count == 0 {
                ended = true
            } else {
                return errno == EAGAIN || errno == EINTR
            }
        }
        return true
    }

    private func drain(_ buffer: inout Data, into fd: Int32, _ direction: Direction) -> Bool {
        while !buffer.isEmpty {
            let limit = shared.withLock { shared -> Int in
                // Another connection may have used up the allowance just now.
                guard shared.mode == .open else { return 0 }
                guard let allowance = shared.allowance, allowance.direction == direction else { return .max }
                return allowance.bytes
            }
            guard limit > 0 else { return true }
            let count = buffer.prefix(limit).withUnsafeBytes {
                send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            buffer = Data(buffer.dropFirst(count))
            let cutNow = shared.withLock { shared -> Bool in
                switch direction {
                case .towardsTarget: shared.bytesTowardsTarget += count
                case .fromTarget: shared.bytesFromTarget += count
                }
                guard let allowance = shared.allowance, allowance.direction == direction else { return false }
                shared.allowance = (direction, allowance.bytes - count)
                if allowance.bytes <= count { shared.cut() }
                return allowance.bytes <= count
            }
            if cutNow { return false }
        }
        return true
    }

    private func accept(_ listener: Int32) -> Pair? {
        let near = Glibc.accept(listener, nil, nil)
        guard near >= 0 else { return nil }
        let far = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let pair = Pair(near: near, far: far)
        guard Loopback.connect(far, port: target) == 0 else {
            Self.reset(pair)
            return nil
        }
        for fd in [near, far] {
            var one: Int32 = 1
            setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
            _ = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)
        }
        shared.withLock { $0.connections += 1 }
        return pair
    }

    /// Closes both ends with RST, as a dying router would at best.
    private static func reset(_ pair: Pair) {
        for fd in [pair.near, pair.far] {
            var option = linger(l_onoff: 1, l_linger: 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
            close(fd)
        }
    }

    private static func boundSocket(_ port: UInt16) -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var one: Int32 = 1
        for option in [SO_REUSEADDR, SO_REUSEPORT] {
            setsockopt(descriptor, SOL_SOCKET, option, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        guard Loopback.bind(descriptor, port: port) == 0 else {
            close(descriptor)
            return -1
        }
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        return descriptor
    }
}
