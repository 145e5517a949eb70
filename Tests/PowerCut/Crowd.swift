import Foundation
import Workbench

/// All peers of a world, and the one thread that moves their packets.
final class Crowd {
    let peers: [Peer]
    private let cast: Cast

    init(_ peers: [Peer], _ cast: Cast) {
        self.peers = peers
        self.cast = cast
    }

    /// Moves what can be moved, and waits a few milliseconds at most for something to move.
    func exchange() {
        let connected = peers.filter { $0.socket >= 0 }
        var polled = connected.map {
            pollfd(
                fd: $0.socket, events: Int16(POLLIN) | ($0.wantsToWrite ? Int16(POLLOUT) : 0), revents: 0)
        }
        poll(&polled, nfds_t(polled.count), 2)
        for (peer, entry) in zip(connected, polled) where entry.revents != 0 { peer.read() }
        for peer in connected where peer.wantsToWrite { peer.write() }
    }

    // MARK: - While the disk is recorded

    /// Everybody comes, publishes and goes by role for so many seconds.
    func live(seconds: Double, _ random: inout SplitMix64) {
        let began = monotonicSeconds()
        while case let now = monotonicSeconds() - began, now < seconds {
            for peer in peers where !peer.role.isAtCloud {
                attend(peer, now, &random)
                peer.publishDue(at: now, &random)
            }
            exchange()
        }
    }

    private func attend(_ peer: Peer, _ now: Double, _ random: inout SplitMix64) {
        let isWanted =
            switch peer.role.presence {
            case .always: true
            case .toSubscribe: peer.memory.subscribedSince == nil
            case .turns(let seconds): Int(now / seconds) % 2 == 0
            case .afterwards: false
            }
        if isWanted, now >= peer.role.appearsAtSecond {
            peer.connect()
        } else if peer.socket >= 0, !isWanted {
            peer.leave(gracefully: .random(using: &random))
        }
    }

    // MARK: - After a cut

    /// Those at the cloud wait there before the gateway is back.
    func awaitTheCloud(seconds: Double) throws {
        let observers = peers.filter(\.role.isAtCloud)
        let end = monotonicSeconds() + seconds
        while !observers.allSatisfy(\.isSubscribed) {
            guard monotonicSeconds() < end else { throw WorkbenchError("the cloud lets nobody subscribe") }
            observers.forEach { $0.connect() }
            exchange()
        }
    }

    /// Everybody comes back, settles what was begun, and fetches what is owed. One more message in each stream, at the
    /// end, shows that all before it has come.
    ///
    /// - Returns: false when that took longer than `seconds`.
    func settle(seconds: Double, _ random: inout SplitMix64) -> Bool {
        let end = monotonicSeconds() + seconds
        func exchangeUntil(_ condition: () -> Bool) -> Bool {
            while !condition() {
                guard monotonicSeconds() < end else { return false }
                for peer in peers where peer.socket < 0 { peer.connect() }
                exchange()
            }
            return true
        }
        let publishers = peers.filter { !$0.role.streams.isEmpty }
        guard
            exchangeUntil({
                peers.allSatisfy { $0.isConnected && $0.isSubscribed && $0.memory.flights.isEmpty }
            })
        else { return false }
        for publisher in publishers { publisher.publishOneOfEach(&random) }
        let last = publishers.flatMap { publisher in
            publisher.role.streams.map { Message(stream: $0, number: publisher.lastNumber(of: $0)) }
        }
        func hasAll(_ peer: Peer) -> Bool {
            last.allSatisfy { message in
                cast.qos(of: message.stream, for: peer.role) == nil
                    || peer.memory.highest[message.stream] == message.number
            }
        }
        guard exchangeUntil({ peers.allSatisfy { hasAll($0) && $0.memory.flights.isEmpty } }) else {
            return false
        }
        // What comes twice may come late.
        let soon = monotonicSeconds() + 0.03
        while monotonicSeconds() < soon { exchange() }
        return true
    }

    func leave() { peers.forEach { $0.leave(gracefully: true) } }
}
