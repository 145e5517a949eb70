import Foundation
import Synchronization

/// The line between gateway and cloud: a TCP relay on 127.0.0.1 that can be cut.
///
/// One thread moves all bytes. Its port belongs to it for its whole life, also while the line is cut and
/// connecting to it is refused.
package final class CuttableLink: Sendable {
    package enum Direction: Sendable { case towardsTarget, fromTarget }

    private enum Mode: Equatable { case open, cut, blackHole }
    private enum Unit { case bytes, packets }

    /// A thin and long line.
    private struct Slowness {
        var bytesPerSecond: Double
        /// One way.
        var delaySeconds: Double
    }

    private struct Shared {
        var mode = Mode.open
        /// How often it was cut. The thread makes every cut good, also one that was over before it came to it.
        var cuts = 0
        var ended = false
        /// What may still pass before the line is cut; nil for no limit.
        var allowance: (direction: Direction, amount: Int, unit: Unit)?
        var slowness: Slowness?
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
    private let tap: WireTap?
    private let shared = Mutex(Shared())
    private let bell = Bell()
    private let finished = DispatchSemaphore(value: 0)

    /// Opens a line to 127.0.0.1:`target`.
    ///
    /// - Parameter tap: told of everything that has passed.
    package init(to target: UInt16, tap: WireTap? = nil) throws {
        self.target = target
        self.tap = tap
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
            $0.slowness = nil
        }
    }

    /// Connections stay, and new ones are made, but no byte moves until `restore()`.
    package func blackHole() { change { $0.mode = .blackHole } }

    /// Cuts after `bytes` more bytes, at least one, went in `direction`, be it in the middle of a packet.
    package func cut(after bytes: Int, _ direction: Direction) {
        precondition(bytes > 0, "a cut that waits for nothing is cut()")
        change { $0.allowance = (direction, bytes, .bytes) }
    }

    /// Cuts behind the `packets`-th Control Packet from now that goes in `direction`.
    package func cut(afterPackets packets: Int, _ direction: Direction) {
        precondition(packets > 0, "a cut that waits for nothing is cut()")
        change { $0.allowance = (direction, packets, .packets) }
    }

    /// Lets so many bytes a second pass in each direction, each half of `roundTripSeconds` late, until `restore()`.
    package func slow(bytesPerSecond: Int, roundTripSeconds: Double) {
        change {
            $0.slowness = Slowness(bytesPerSecond: Double(bytesPerSecond), delaySeconds: roundTripSeconds / 2)
        }
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
        var towardsTarget = Pipe()
        var fromTarget = Pipe()
        var nearEnded = false
        var farEnded = false
        var line = WireTap.Line()
    }

    /// Bytes on their way in one direction.
    private struct Pipe {
        /// May be written now.
        var ready = Data()
        /// Still on the slow part of the line, each with the time at which it has passed it.
        var delayed: [(at: Double, bytes: Data)] = []
        var delayedBytes = 0

        var isEmpty: Bool { ready.isEmpty && delayed.isEmpty }
        var count: Int { ready.count + delayedBytes }

        mutating func enter(_ bytes: some Collection<UInt8>, _ slowness: Slowness?) {
            guard let slowness else {
                // Nothing overtakes what went in before.
                if delayed.isEmpty {
                    ready.append(contentsOf: bytes)
                } else {
                    delayed.append((delayed[delayed.count - 1].at, Data(bytes)))
                    delayedBytes += bytes.count
                }
                return
            }
            // In pieces no larger than a packet on such a line.
            var rest = Data(bytes)
            while !rest.isEmpty {
                let piece = rest.prefix(256)
                let free = max(
                    monotonicSeconds(), (delayed.last?.at ?? 0) - slowness.delaySeconds)
                let at = free + Double(piece.count) / slowness.bytesPerSecond + slowness.delaySeconds
                delayed.append((at, Data(piece)))
                delayedBytes += piece.count
                rest = Data(rest.dropFirst(piece.count))
            }
        }

        mutating func advance() {
            let now = monotonicSeconds()
            let arrived = delayed.prefix { $0.at <= now }
            guard !arrived.isEmpty else { return }
            for (_, bytes) in arrived {
                ready.append(bytes)
                delayedBytes -= bytes.count
            }
            delayed.removeFirst(arrived.count)
        }
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
            let waits = pairs.contains { !$0.towardsTarget.delayed.isEmpty || !$0.fromTarget.delayed.isEmpty }
            poll(&polled, nfds_t(polled.count), waits ? 5 : 1000)
            bell.answer()
            guard mode == .open,
                shared.withLock({ $0.mode == .open && $0.cuts == cutsMade && !$0.ended })
            else { continue }
            pairs = pairs.compactMap { move($0) }
            if polled[1].revents != 0, let pair = accept(listener) { pairs.append(pair) }
        }
    }

    private static let bufferBytesMax = 256 * 1024

    private static func interest(_ fd: Int32, ended: Bool, _ incoming: Pipe, _ outgoing: Pipe) -> pollfd {
        var events: Int32 = 0
        if !ended && incoming.count < bufferBytesMax { events |= POLLIN }
        if !outgoing.ready.isEmpty { events |= POLLOUT }
        // A descriptor nothing is wanted of would wake us for ever once its peer is gone.
        return pollfd(fd: events == 0 ? -1 : fd, events: Int16(events), revents: 0)
    }

    /// Moves what can be moved; nil when the connection is over.
    private func move(_ old: Pair) -> Pair? {
        var pair = old
        let slowness = shared.withLock { $0.slowness }
        let alive =
            Self.fill(&pair.towardsTarget, from: pair.near, &pair.nearEnded, slowness)
            && Self.fill(&pair.fromTarget, from: pair.far, &pair.farEnded, slowness)
            && drain(&pair.towardsTarget, into: pair.far, .towardsTarget, &pair.line)
            && drain(&pair.fromTarget, into: pair.near, .fromTarget, &pair.line)
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

    private static func fill(
        _ pipe: inout Pipe, from fd: Int32, _ ended: inout Bool, _ slowness: Slowness?
    ) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        pipe.advance()
        // A slow line whose buffers held minutes of it would show its length, not how it is used.
        let bytesMax = slowness == nil ? bufferBytesMax : 8192
        while !ended && pipe.count < bytesMax {
            let count = recv(fd, &chunk, chunk.count, 0)
            if count > 0 {
                pipe.enter(chunk[..<count], slowness)
            } else if count == 0 {
                ended = true
            } else {
                return errno == EAGAIN || errno == EINTR
            }
        }
        return true
    }

    private func drain(
        _ pipe: inout Pipe, into fd: Int32, _ direction: Direction, _ line: inout WireTap.Line
    ) -> Bool {
        while !pipe.ready.isEmpty {
            let framer = direction == .towardsTarget ? line.towardsTarget : line.fromTarget
            let limit = shared.withLock { shared -> Int in
                // Another connection may have used up the allowance just now.
                guard shared.mode == .open else { return 0 }
                guard let allowance = shared.allowance, allowance.direction == direction else { return .max }
                return switch allowance.unit {
                case .bytes: allowance.amount
                // One at a time: each is to be counted before the next may pass.
                case .packets: framer.bytes(until: 1, in: pipe.ready) ?? .max
                }
            }
            guard limit > 0 else { return true }
            let count = pipe.ready.prefix(limit).withUnsafeBytes {
                send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            let ended = passed(pipe.ready.prefix(count), direction, &line)
            pipe.ready = Data(pipe.ready.dropFirst(count))
            if spent(count, ended, direction) { return false }
        }
        return true
    }

    /// - Returns: how many Control Packets ended in these bytes.
    private func passed(_ bytes: Data, _ direction: Direction, _ line: inout WireTap.Line) -> Int {
        let packets = line.take(bytes, direction)
        tap?.passed(packets, direction, on: &line)
        return packets.count
    }

    /// Counts what has passed; returns whether the line is cut by it.
    private func spent(_ bytes: Int, _ packets: Int, _ direction: Direction) -> Bool {
        shared.withLock { shared -> Bool in
            switch direction {
            case .towardsTarget: shared.bytesTowardsTarget += bytes
            case .fromTarget: shared.bytesFromTarget += bytes
            }
            guard let allowance = shared.allowance, allowance.direction == direction else { return false }
            let left = allowance.amount - (allowance.unit == .bytes ? bytes : packets)
            shared.allowance = (direction, left, allowance.unit)
            if left <= 0 { shared.cut() }
            return left <= 0
        }
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
