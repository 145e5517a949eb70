import Foundation
import Synchronization
import Workbench

/// A TCP proxy on loopback through which every byte takes its time, like a mobile link. Its thread lasts as long
/// as the process.
final class DelayedLink: Sendable {
    let port: UInt16
    private let way: Delay

    /// Seconds each way; what is on its way already arrives as it would have.
    final class Delay: Sendable {
        private let value = Mutex(0.0)
        var seconds: Double { value.withLock { $0 } }
        func set(_ seconds: Double) { value.withLock { $0 = seconds } }
    }

    private struct Pair {
        let near: Int32
        let far: Int32
        /// What is on its way, with the moment at which it arrives.
        var toFar: [(at: Double, bytes: [UInt8])] = []
        var toNear: [(at: Double, bytes: [UInt8])] = []
    }

    /// Without any delay at first.
    init(to target: UInt16) throws {
        port = FreePort.next()
        let way = Delay()
        self.way = way
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var one: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        guard Loopback.bind(listener, port: port) == 0, listen(listener, 8) == 0 else {
            throw WorkbenchError("cannot listen on port \(port)")
        }
        Thread.detachNewThread { Self.carry(listener, to: target, way) }
    }

    /// - Parameter seconds: each way.
    func delay(by seconds: Double) { way.set(seconds) }

    private static func carry(_ listener: Int32, to target: UInt16, _ way: Delay) {
        var pairs: [Pair] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            var polls = [pollfd(fd: listener, events: Int16(POLLIN), revents: 0)]
            for pair in pairs {
                polls.append(pollfd(fd: pair.near, events: Int16(POLLIN), revents: 0))
                polls.append(pollfd(fd: pair.far, events: Int16(POLLIN), revents: 0))
            }
            _ = poll(
                &polls, nfds_t(polls.count),
                pairs.allSatisfy { $0.toFar.isEmpty && $0.toNear.isEmpty } ? 50 : 1)
            let now = monotonicSeconds()
            let delay = way.seconds
            var ended: [Int] = []
            for index in pairs.indices {
                let fromNear = polls[1 + 2 * index].revents != 0
                let fromFar = polls[2 + 2 * index].revents != 0
                if fromNear {
                    let count = recv(pairs[index].near, &buffer, buffer.count, 0)
                    if count > 0 {
                        pairs[index].toFar.append((now + delay, Array(buffer[..<count])))
                    } else {
                        ended.append(index)
                    }
                }
                if fromFar, !ended.contains(index) {
                    let count = recv(pairs[index].far, &buffer, buffer.count, 0)
                    if count > 0 {
                        pairs[index].toNear.append((now + delay, Array(buffer[..<count])))
                    } else {
                        ended.append(index)
                    }
                }
                while let first = pairs[index].toFar.first, first.at <= now {
                    sendAll(pairs[index].far, first.bytes)
                    pairs[index].toFar.removeFirst()
                }
                while let first = pairs[index].toNear.first, first.at <= now {
                    sendAll(pairs[index].near, first.bytes)
                    pairs[index].toNear.removeFirst()
                }
            }
            for index in ended.reversed() {
                close(pairs[index].near)
                close(pairs[index].far)
                pairs.remove(at: index)
            }
            if polls[0].revents != 0 {
                let near = accept(listener, nil, nil)
                let far = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                if near >= 0, Loopback.connect(far, port: target) == 0 {
                    for end in [near, far] {
                        var one: Int32 = 1
                        setsockopt(
                            end, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
                    }
                    pairs.append(Pair(near: near, far: far))
                } else {
                    close(near)
                    close(far)
                }
            }
        }
    }

    private static func sendAll(_ descriptor: Int32, _ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(
                    descriptor, $0.baseAddress.map { $0 + sent }, bytes.count - sent,
                    Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            sent += count
        }
    }
}
