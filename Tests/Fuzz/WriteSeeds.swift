import Foundation
import MQTT

/// Writes the hand-made examples of the everyday tests as inputs for the fuzzer: each by itself, and all that
/// one side of one version may receive in a row.
///
///     write-seeds <directory>
@main
struct WriteSeeds {
    static func main() throws {
        let directory = URL(fileURLWithPath: CommandLine.arguments[1], isDirectory: true)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        for (index, seed) in seeds.enumerated() {
            try Data(seed).write(to: directory.appendingPathComponent("seed-\(index)"))
        }
    }

    private static var seeds: [[UInt8]] {
        var seeds: [[UInt8]] = []
        for example in Examples.all {
            seeds.append(
                FuzzedStream.input(
                    to: example.receiver, version: example.isConnect ? nil : example.version, example.bytes))
        }
        for version in [ProtocolVersion.v3_1, .v3_1_1, .v5_0] {
            for receiver in [PacketDecoder.Receiver.server, .client] {
                let mine = Examples.all.filter { $0.version == version && $0.receiver == receiver }
                let connect = mine.filter(\.isConnect).prefix(1)
                let stream = (connect + mine.filter { !$0.isConnect }).flatMap(\.bytes)
                seeds.append(
                    FuzzedStream.input(to: receiver, version: connect.isEmpty ? version : nil, stream))
            }
        }
        return seeds + hungry
    }

    /// Packets that take the most memory for their bytes.
    private static var hungry: [[UInt8]] {
        let few: [UserProperty] = Array(repeating: UserProperty("", ""), count: 500)
        let packets: [(PacketDecoder.Receiver, Packet)] = [
            (.server, .unsubscribe(Unsubscribe(id: 1, filters: Array(repeating: filter("a"), count: 1000)))),
            (
                .server,
                .subscribe(
                    Subscribe(
                        id: 1,
                        requests: Array(
                            repeating: SubscriptionRequest(filter: filter("a"), maximumQoS: .exactlyOnce),
                            count: 800)))
            ),
            (.server, .disconnect(Disconnect(userProperties: few))),
            (.server, .publish(Publish(message: message("a", "", ForwardedProperties(userProperties: few))))),
            (
                .client,
                .publish(
                    Publish(
                        message: message("a", ""), subscriptionIdentifiers: Array(repeating: 1, count: 1500)))
            ),
            (.client, .unsuback(Unsuback(id: 1, reasons: Array(repeating: .success, count: 3000)))),
        ]
        return packets.map { receiver, packet in
            FuzzedStream.input(to: receiver, version: .v5_0, packet.encoded(.v5_0))
        }
    }
}
