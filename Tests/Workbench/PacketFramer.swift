import Foundation

/// Cuts one direction of a connection into Control Packets, from outside: it knows the Fixed Header
/// [MQTT5-2.1.1] and no more.
package struct PacketFramer {
    /// The beginning of a packet whose end has not come.
    private var partial: [UInt8] = []

    /// Takes the bytes that come next; returns the packets that end in them, whole.
    mutating func take(_ bytes: some Collection<UInt8>) -> [[UInt8]] {
        partial += bytes
        var packets: [[UInt8]] = []
        var start = 0
        while let length = Self.length(partial[start...]), start + length <= partial.count {
            packets.append(Array(partial[start..<(start + length)]))
            start += length
        }
        partial.removeFirst(start)
        return packets
    }

    /// How many of `bytes`, which come next, pass until `count` packets have ended; nil when they do not hold as
    /// many ends.
    func bytes(until count: Int, in bytes: Data) -> Int? {
        let whole = partial + bytes
        var end = 0
        for _ in 0..<count {
            guard let length = Self.length(whole[end...]), end + length <= whole.count else { return nil }
            end += length
        }
        return end - partial.count
    }

    /// The length of the packet that begins here, fixed header included; nil while that has not come.
    package static func length(_ bytes: ArraySlice<UInt8>) -> Int? {
        var remaining = 0
        for (place, byte) in bytes.dropFirst().prefix(4).enumerated() {
            remaining |= Int(byte & 0x7F) << (7 * place)
            if byte & 0x80 == 0 { return 2 + place + remaining }
        }
        return nil
    }
}
