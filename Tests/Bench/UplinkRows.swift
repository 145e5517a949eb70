import Foundation
import Workbench

/// Clouds that never answer: what they cost those who are at home. Four gateways side by side in one run, so that all
/// of them meet the same noise.
enum Silent {
    private static let seconds = 30.0
    private static let perSecond = 100.0

    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row(
            "An uplink that never answers: QoS 1 from one client at home to another, publish to deliver")
        let silent = try SilentServer(accepts: true)
        let deaf = try SilentServer(accepts: false)
        let clouds: [(name: String, address: String?)] = [
            ("without an uplink", nil), ("a cloud that accepts and stays silent", silent.address),
            ("a cloud that does not accept", deaf.address),
            ("a cloud whose name is unknown", "mqtt://nowhere.invalid:1883"),
        ]
        var gateways: [Gateway] = []
        defer { gateways.forEach { $0.kill() } }
        var pairs: [HomePair] = []
        for (name, address) in clouds {
            var uplinks: [Gateway.Uplink] = []
            if let address {
                var uplink = Gateway.Uplink(port: 0, routes: ["{ out: \"bench/#\" }"])
                uplink.address = address
                uplinks = [uplink]
            }
            let home = try Workplace("silent", under: place.path)
            let gateway = try Gateway(binary, in: home, uplinks: uplinks)
            try gateway.start()
            gateways.append(gateway)
            pairs.append(try HomePair(name, port: gateway.port))
        }
        // Until every one of them has tried, and waits.
        HomePair.run(pairs, seconds: 3, perSecond: perSecond)
        pairs.forEach { $0.forget() }
        HomePair.run(pairs, seconds: seconds, perSecond: perSecond)
        let usual = percentile(pairs[0].latencies, 0.99)
        row.note("p99 \(pairs[0].name)", LoneSensor.milliseconds(usual))
        for pair in pairs.dropFirst() {
            let found = percentile(pair.latencies, 0.99)
            row.goal(
                "p99 with \(pair.name) (\(LoneSensor.milliseconds(found))) / without an uplink",
                found / usual, atMost: 1.5)
        }
        let missing = pairs.reduce(0) { $0 + $1.missing }
        row.goal("messages that did not arrive", Double(missing), atMost: 0, digits: 0)
        return row
    }

    static func percentile(_ values: [Double], _ share: Double) -> Double {
        let sorted = values.sorted()
        return sorted.isEmpty ? .nan : sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
    }
}

/// A publisher and a subscriber of one gateway.
private final class HomePair {
    let name: String
    private let publisher: Wire
    private let subscriber: Wire
    private var sentAt: [Double] = []
    private(set) var latencies: [Double] = []
    private var forgotten = 0
    private static let topic = "bench/home"

    init(_ name: String, port: UInt16) throws {
        self.name = name
        subscriber = try Wire(port: port, clientIdentifier: "home-subscriber", cleanSession: true)
        try subscriber.subscribe(Self.topic, qos: 1)
        publisher = try Wire(port: port, clientIdentifier: "home-publisher", cleanSession: true)
    }

    /// Counts from here on.
    func forget() {
        latencies = []
        forgotten = sentAt.count
    }

    var missing: Int { sentAt.count - forgotten - latencies.count }

    /// Lets all of them talk at the same rate, and then come to rest.
    static func run(_ pairs: [HomePair], seconds: Double, perSecond: Double) {
        let began = monotonicSeconds()
        var published = 0
        while monotonicSeconds() - began < seconds + 1 {
            let due = Int(min(monotonicSeconds() - began, seconds) * perSecond)
            while published < due {
                pairs.forEach { $0.publish() }
                published += 1
            }
            var polls = pairs.map { pollfd(fd: $0.subscriber.descriptor, events: Int16(POLLIN), revents: 0) }
            _ = poll(&polls, nfds_t(polls.count), 1)
            pairs.forEach { $0.take() }
        }
    }

    private func publish() {
        let number = UInt32(sentAt.count)
        sentAt.append(monotonicSeconds())
        let id = UInt16(number % 65_535 + 1)
        var body = Wire.string(Self.topic) + [UInt8(id >> 8), UInt8(id & 255)]
        body += withUnsafeBytes(of: number.bigEndian) { Array($0) } + [UInt8](repeating: 7, count: 196)
        publisher.send([0x32] + Wire.length(body.count) + body)
    }

    private func take() {
        let now = monotonicSeconds()
        _ = publisher.read()
        publisher.consume(publisher.pending.count)
        _ = subscriber.read()
        for message in subscriber.takeMessages() {
            let number = message.payload.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            if number >= forgotten { latencies.append(now - sentAt[number]) }
        }
    }
}

/// A million messages after an outage, paced, on a route that sends live messages first and on one that keeps its order.
enum Drain {
    private static let pace = 2000.0
    private static let seconds = 60.0
    private static let waiting = 1_000_000

    static func measure(_ binary: String, _ place: Workplace) throws -> Row {
        var row = Row("After an outage of 1 million messages, paced at 2000/s")
        let broker = try CloudBroker(in: place)
        try broker.start()
        defer { broker.kill() }
        let link = try CuttableLink(to: broker.port)
        defer { link.end() }
        var uplink = Gateway.Uplink(
            port: link.port,
            routes: [
                #"{ out: "bench/live/#", to: "cloud/live/#", qos: 1, order: live-first }"#,
                #"{ out: "bench/plain/#", to: "cloud/plain/#", qos: 1 }"#,
            ])
        uplink.extra = ["drain: { messages: \(Int(pace))/s }"]
        let gateway = try Gateway(
            binary, in: place, uplinks: [uplink], settings: ["limits: { queue-messages: 10000000 }"])
        link.cut()
        try gateway.start()
        defer { gateway.kill() }
        for prefix in ["bench/live/", "bench/plain/"] {
            var plan = Publishers.Plan(port: gateway.port)
            plan.topicPrefix = prefix
            plan.payloadBytes = 200
            try Publishers(plan).run(total: waiting / 2)
        }
        let cloud = try CloudSide(port: broker.port)
        link.restore()
        try cloud.watch(publishingAt: gateway.port, seconds: seconds)
        row.goal(
            "live messages, p99", Silent.percentile(cloud.liveSeconds, 0.99), atMost: 1, digits: 3, unit: " s"
        )
        row.goal(
            "live messages that did not arrive in time to be counted", Double(cloud.liveMissing), atMost: 0,
            digits: 0)
        let rate = Double(cloud.arrivals) / cloud.watchedSeconds
        row.note("messages a second", Row.number(rate, 0))
        row.goal("off the pace, %", abs(rate / pace - 1) * 100, atMost: 10, digits: 1)
        row.goal("messages that overtook one of their topic", Double(cloud.overtaken), atMost: 0, digits: 0)
        return row
    }
}

/// What arrives at the cloud, while something live is published at home.
private final class CloudSide {
    private let wire: Wire
    private(set) var liveSeconds: [Double] = []
    private(set) var arrivals = 0
    private(set) var overtaken = 0
    private(set) var watchedSeconds = 0.0
    private var livePublished: [Double] = []
    /// By topic: the highest number that came.
    private var highest: [ArraySlice<UInt8>: UInt64] = [:]
    private static let perSecond = 50.0
    /// The link comes back, and the first second's worth goes out at once.
    private static let warmUp = 8.0

    var liveMissing: Int { livePublished.count - liveSeconds.count }

    init(port: UInt16) throws {
        wire = try Wire(port: port, clientIdentifier: "bench-cloud", cleanSession: true)
        try wire.subscribe("cloud/#", qos: 1)
    }

    func watch(publishingAt port: UInt16, seconds: Double) throws {
        let sensor = try Wire(port: port, clientIdentifier: "bench-live", cleanSession: true)
        let began = monotonicSeconds()
        while monotonicSeconds() - began < Self.warmUp + seconds + 2 {
            let elapsed = monotonicSeconds() - began
            if elapsed > Self.warmUp, elapsed < Self.warmUp + seconds {
                while Double(livePublished.count) < (elapsed - Self.warmUp) * Self.perSecond {
                    publish(sensor)
                }
            }
            var poll = pollfd(fd: wire.descriptor, events: Int16(POLLIN), revents: 0)
            _ = Glibc.poll(&poll, 1, 5)
            _ = sensor.read()
            sensor.consume(sensor.pending.count)
            guard wire.read() else { return }
            let isCounted = elapsed > Self.warmUp && elapsed <= Self.warmUp + seconds
            for message in wire.takeMessages() { note(message, isCounted) }
        }
        watchedSeconds = seconds
    }

    private func publish(_ sensor: Wire) {
        let number = UInt64(livePublished.count + 1)
        livePublished.append(monotonicSeconds())
        let id = UInt16(number % 65_535 + 1)
        var body = Wire.string("bench/live/now") + [UInt8(id >> 8), UInt8(id & 255), 0, 0, 0, 0]
        body += withUnsafeBytes(of: number.bigEndian) { Array($0) } + [UInt8](repeating: 7, count: 188)
        sensor.send([0x32] + Wire.length(body.count) + body)
    }

    private func note(_ message: Wire.Message, _ isCounted: Bool) {
        if isCounted { arrivals += 1 }
        let number = message.payload.dropFirst(4).prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        if message.topic.elementsEqual("cloud/live/now".utf8) {
            let seconds = monotonicSeconds() - livePublished[Int(number) - 1]
            if liveSeconds.count < Int(number) { liveSeconds.append(seconds) }
        }
        let before = highest[message.topic] ?? 0
        if number < before { overtaken += 1 }
        highest[message.topic] = max(before, number)
    }
}

extension Wire {
    struct Message {
        let topic: ArraySlice<UInt8>
        let payload: ArraySlice<UInt8>
    }

    /// The QoS 1 messages that came, acknowledged.
    func takeMessages() -> [Message] {
        var messages: [Message] = []
        var acknowledgements: [UInt8] = []
        var rest = pending
        var consumed = 0
        while let length = PacketFramer.length(rest), length <= rest.count {
            let packet = rest.prefix(length)
            rest = rest.dropFirst(length)
            consumed += length
            guard let first = packet.first, first & 0xF6 == 0x32 else { continue }
            let lengthBytes = packet.dropFirst().prefix { $0 & 0x80 != 0 }.count + 1
            let body = packet.dropFirst(1 + lengthBytes)
            let topicLength = Int(body[body.startIndex]) << 8 | Int(body[body.startIndex + 1])
            let behind = body.dropFirst(2 + topicLength)
            acknowledgements += [0x40, 2] + behind.prefix(2)
            messages.append(
                Message(
                    topic: ArraySlice(Array(body.dropFirst(2).prefix(topicLength))),
                    payload: behind.dropFirst(2)))
        }
        consume(consumed)
        if !acknowledgements.isEmpty { send(acknowledgements) }
        return messages
    }
}

/// A port on loopback where nobody ever says anything. It lasts as long as the process.
private struct SilentServer {
    let address: String

    /// - Parameter accepts: whether connections are made; without it they hang.
    init(accepts: Bool) throws {
        let port = FreePort.next()
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard Loopback.bind(listener, port: port) == 0, listen(listener, accepts ? 1000 : 0) == 0 else {
            throw WorkbenchError("cannot listen on port \(port)")
        }
        if !accepts {
            // What the kernel accepts by itself is soon full, and then it answers nobody.
            for _ in 0..<4 {
                let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
                _ = Loopback.connect(descriptor, port: port)
            }
        }
        address = "mqtt://127.0.0.1:\(port)"
    }
}
