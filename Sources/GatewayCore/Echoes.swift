import DequeModule
import MQTT

/// What was sent to a cloud that sends it back: one of MQTT 3.1.1 has no No Local [MQTT5-3.8.3.1], and not every one
/// knows the bit of the Protocol Level that stands for it. Each message that went up may come down once, and soon;
/// the same message again is somebody else's.
struct Echoes {
    /// The most that is remembered; beyond it the oldest is taken for somebody else's when it comes back.
    private static let countMax = 10_000
    /// A cloud that is slower than this is believed to send what others have sent.
    private static let lifetimeMilliseconds: UInt64 = 60_000

    /// Until when each is expected.
    private var expected: [Digest: Deque<Instant>] = [:]
    /// The same in the order in which they end; some came already.
    private var ends: Deque<(at: Instant, digest: Digest)> = []

    mutating func sent(_ message: ApplicationMessage, at now: Instant) {
        forget(at: now)
        if ends.count >= Self.countMax, let first = ends.popFirst() {
            remove(first.digest, endingBy: first.at)
        }
        let (digest, end) = (Digest(message), now.advanced(byMilliseconds: Self.lifetimeMilliseconds))
        expected[digest, default: []].append(end)
        ends.append((end, digest))
    }

    func expects(_ message: ApplicationMessage, at now: Instant) -> Bool {
        !ends.isEmpty && expected[Digest(message)]?.last.map { $0 > now } ?? false
    }

    /// It came back: the next one like it is not.
    mutating func cameBack(_ message: ApplicationMessage) {
        let digest = Digest(message)
        guard var list = expected.removeValue(forKey: digest) else { return }
        list.removeFirst()
        if !list.isEmpty { expected[digest] = list }
    }

    private mutating func forget(at now: Instant) {
        while let first = ends.first, first.at <= now {
            ends.removeFirst()
            remove(first.digest, endingBy: first.at)
        }
    }

    private mutating func remove(_ digest: Digest, endingBy end: Instant) {
        guard var list = expected.removeValue(forKey: digest) else { return }
        while let first = list.first, first <= end { list.removeFirst() }
        if !list.isEmpty { expected[digest] = list }
    }

    /// Of topic and payload: FNV-1a over both, from two different starts.
    private struct Digest: Hashable {
        private var one: UInt64 = 0xCBF2_9CE4_8422_2325
        private var two: UInt64 = 0x9E37_79B9_7F4A_7C15

        init(_ message: ApplicationMessage) {
            for byte in message.topic { add(byte) }
            // Stands in no Topic Name [MQTT311-4.7.3-2].
            add(0)
            for byte in message.payload { add(byte) }
        }

        private mutating func add(_ byte: UInt8) {
            one = (one ^ UInt64(byte)) &* 0x100_0000_01B3
            two = (two &* 0x100_0000_01B3) ^ UInt64(byte)
        }
    }
}

extension Gateway {
    /// Takes note of what goes to a cloud that may send it back.
    mutating func noteSent(_ publish: Publish, to index: UplinkIndex, at now: Instant) {
        guard echoes.contains(uplinks[index.number].session),
            plan.uplinks[index.number].in.contains(where: { $0.filter.matches(publish.message.topic) })
        else { return }
        _ = echoes.update(uplinks[index.number].session) { echoes in
            // Sent again it may be no news to the cloud: were two echoes expected, another's message would be taken
            // for the second.
            if publish.duplicate, echoes.expects(publish.message, at: now) { return }
            echoes.sent(publish.message, at: now)
        }
    }
}
