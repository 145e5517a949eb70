import Foundation
import Testing
import Workbench

/// The gateway is killed, stays away for some seconds, and starts again on a machine that stayed up.
@Suite("Time off, in the same boot of the machine", .serialized)
struct TimeOffTests {
    @Test("[MQTT5-3.3.2-6] what a message waits for a gateway that is not there counts towards its expiry")
    func messageExpiry() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        let archive = [
            "-p", "\(gateway.port)", "-V", "mqttv5", "-i", "archive", "-c", "-x", "3600", "-q", "1",
        ]
        try rig.run("/usr/bin/mosquitto_sub", archive + ["-t", "t", "-E"])
        for (text, seconds) in [("short", 3), ("long", 600)] {
            try rig.run(
                "/usr/bin/mosquitto_pub",
                [
                    "-p", "\(gateway.port)", "-V", "mqttv5", "-q", "1", "-t", "t", "-m", text,
                    "-D", "publish", "message-expiry-interval", "\(seconds)",
                ])
        }
        gateway.kill()
        usleep(4_000_000)
        try gateway.start()
        let output = try rig.run("/usr/bin/mosquitto_sub", archive + ["-t", "t", "-C", "1", "-F", "%p %E"])
        let words = output.split(whereSeparator: \.isWhitespace)
        try #require(words.count == 2, "\(output)")
        #expect(words[0] == "long", "the short one has expired")
        let left = try #require(Int(words[1]))
        // Four seconds off, and whatever this took besides.
        #expect(left <= 596 && left > 500)
        #expect(gateway.log.contains("was off for 4 s by the uptime of this machine"), "\(gateway.log)")
        #expect(gateway.log.contains("1 message for \"archive\" dropped: the message expiry interval passed"))
        #expect(gateway.stop() == .exited(0))
    }

    @Test("A good end and a new start count the time between, too")
    func goodEnd() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        try rig.run(
            "/usr/bin/mosquitto_pub",
            [
                "-p", "\(gateway.port)", "-V", "mqttv5", "-q", "1", "-r", "-t", "t", "-m", "kept",
                "-D", "publish", "message-expiry-interval", "600",
            ])
        #expect(gateway.stop() == .exited(0))
        usleep(2_000_000)
        try gateway.start()
        let output = try rig.run(
            "/usr/bin/mosquitto_sub",
            ["-p", "\(gateway.port)", "-V", "mqttv5", "-t", "t", "-C", "1", "-F", "%p %E"])
        let words = output.split(whereSeparator: \.isWhitespace)
        try #require(words.count == 2, "\(output)")
        let left = try #require(Int(words[1]))
        #expect(words[0] == "kept" && left <= 598 && left > 500)
        #expect(gateway.stop() == .exited(0))
    }
}
