import Foundation
import Workbench

/// What fifty device profiles cost a CONNECT: two gateways side by side, one with them and one without any, to which the
/// same devices connect in turn, so that both meet the same noise.
enum Profiles {
    private static let connections = 10_000
    private static let profiles = 50

    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row("\(connections) connections through \(profiles) device profiles, and through none")
        let with = try Workplace("with", under: place.path)
        try writeProfiles(with)
        var doors: [Door] = []
        defer { doors.forEach { $0.gateway.kill() } }
        for home in [try Workplace("without", under: place.path), with] {
            let gateway = try Gateway(binary, in: home)
            try gateway.start()
            doors.append(Door(gateway))
        }
        // The first connections find nothing in any cache.
        for n in 0..<500 { try doors.forEach { try $0.connect(name(n)) } }
        doors.forEach { $0.begin() }
        for n in 0..<connections {
            // Who is asked first has the colder cache.
            let first = n & 1
            try doors[first].connect(name(n))
            try doors[1 - first].connect(name(n))
        }
        let (without, through) = (doors[0], doors[1])
        let (medianWithout, medianWith) = (
            LoneSensor.median(without.latencies), LoneSensor.median(through.latencies)
        )
        row.note("CONNECT to CONNACK, median, without profiles", microseconds(medianWithout))
        row.goal(
            "the same through \(profiles) (\(microseconds(medianWith))) / without",
            medianWith / medianWithout,
            atMost: 1.1)
        let (cpuWithout, cpuWith) = (without.cpuSeconds, through.cpuSeconds)
        let each = { (seconds: Double) in microseconds(seconds / Double(connections)) }
        row.note("CPU a connection, without profiles", each(cpuWithout))
        row.note("CPU a connection, through \(profiles)", each(cpuWith))
        return row
    }

    private static func microseconds(_ seconds: Double) -> String {
        String(format: "%.0f µs", seconds * 1_000_000)
    }

    /// As devices are called: line, kind, number.
    private static func name(_ number: Int) -> String { "plant7-line50-press-\(number)" }

    /// Each looks for its line in the middle of the name, and in the user name; only the last fits, and it says what a
    /// profile usually says.
    private static func writeProfiles(_ place: Workplace) throws {
        for n in 1...profiles {
            let text = """
                profile: line\(n)
                order: \(n)
                match:
                  - client-id: "*-line\(n)-*"
                  - { client-id: "*-press-*", username: "line\(n)-*" }
                sessions: { expiry-for-3.1.1: 7d }
                keep-alive: { max: 10m }
                publish: { allow: "sensors/${clientid}/#", deny: "sensors/${clientid}/raw/#" }
                subscribe: { allow: "commands/${clientid}/#" }
                rate: { messages: 100/s }
                queue: { messages: 1000, when-full: drop-oldest }

                """
            _ = try place.write(text, to: "device-profiles/line\(n).yaml")
        }
    }

    /// One of the two gateways, and how long it took to let a client in.
    private final class Door {
        let gateway: Gateway
        private(set) var latencies: [Double] = []
        private var cpuBefore = 0.0

        init(_ gateway: Gateway) { self.gateway = gateway }

        /// Counts from here on.
        func begin() {
            latencies = []
            cpuBefore = gateway.pid.map { Gauges.cpuSeconds($0) } ?? 0
        }

        var cpuSeconds: Double { (gateway.pid.map { Gauges.cpuSeconds($0) } ?? 0) - cpuBefore }

        /// A client is let in, and leaves again.
        func connect(_ name: String) throws {
            let wire = try Wire(port: gateway.port, clientIdentifier: name, cleanSession: true)
            latencies.append(wire.greetingSeconds)
            wire.disconnect()
        }
    }
}
