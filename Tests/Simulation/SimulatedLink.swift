/// A connection between a peer and the gateway: two streams of bytes that arrive later, in order and in other pieces,
/// until somebody cuts it.
struct SimulatedLink {
    /// One direction.
    struct Stream {
        /// Sent and not arrived.
        var bytes: [UInt8] = []
        /// Nothing arrives before.
        var notBefore: UInt64 = 0
        /// Nothing that is sent arrives any more.
        var isOver = false

        /// Plans when `bytes` arrive.
        mutating func send(_ new: [UInt8], at now: UInt64, _ road: Road, _ dice: inout Dice) -> [(
            at: UInt64, count: Int
        )] {
            guard !isOver, !new.isEmpty else { return [] }
            bytes += new
            var pieces = [new.count]
            if new.count > 1, dice.below(4) == 0 {
                let first = 1 + dice.below(new.count - 1)
                pieces = [first, new.count - first]
            }
            return pieces.map { count in
                let delay = road.delay + UInt64(dice.below(Int(road.jitter) + 1))
                notBefore = max(notBefore, now + delay) + UInt64(count) * 1_000_000 / road.bytesPerSecond
                return (notBefore, count)
            }
        }

        mutating func take(_ count: Int) -> [UInt8] {
            let taken = Array(bytes.prefix(count))
            bytes.removeFirst(taken.count)
            return taken
        }

        /// Of what is on its way only some arrives, up to any byte.
        mutating func cut(_ dice: inout Dice) {
            if !bytes.isEmpty { bytes.removeLast(dice.below(bytes.count + 1)) }
            isOver = true
        }
    }

    /// What it is like, in microseconds and bytes a second.
    struct Road {
        var delay: UInt64 = 2_000
        var jitter: UInt64 = 3_000
        var bytesPerSecond: UInt64 = 1_000_000
    }

    let peer: Int
    /// Which of the gateway's lives it belongs to.
    let life: Int
    /// The gateway's name for it; nil for an uplink.
    let connection: UInt64?
    var road: Road
    var toGateway = Stream()
    var toPeer = Stream()
    /// Who has not learnt yet that it is over.
    var isOpenAtGateway = true
    var isOpenAtPeer = true
    /// Something that was sent on it has not arrived.
    var isMutilated = false
    /// What the gateway was told.
    var isWritable = true

    /// Bytes on their way to the peer from which the gateway is told that the send buffer is full, and those below which
    /// it is told that it has room.
    static let waitingBytesHigh = 24 << 10
    static let waitingBytesLow = 6 << 10
}
