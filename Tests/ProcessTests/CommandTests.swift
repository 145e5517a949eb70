import Foundation
import Testing
import Workbench

/// The `tidegate` command: what it says, and its exit status.
@Suite("the tidegate command", .serialized)
struct CommandTests {
    @Test("--version says a version")
    func saysVersion() throws {
        let (ending, text) = try Rig().command("--version")
        #expect(ending == .exited(0))
        #expect(text.contains(/\d+\.\d+/), "\(text)")
    }

    @Test("check accepts a good file")
    func acceptsGoodFile() throws {
        let rig = try Rig()
        let file = try rig.place.write(
            """
            gateway: plant-7
            state: /var/lib/tidegate
            listeners:
              - address: 127.0.0.1:1883
            uplinks:
              - name: cloud
                address: mqtt://broker.example.com:1883
                routes:
                  - { out: "sensors/#", to: "site/${gateway}/sensors/#", qos: 1 }

            """, to: "good.yaml")
        let (ending, text) = try rig.command("check", file)
        #expect(ending == .exited(0), "\(text)")
    }

    @Test(
        "check names the file, the line and what to write",
        arguments: [
            ("gateway: plant-7\nlistners:\n  - address: 127.0.0.1:1883\n", 2, "listeners"),
            ("gateway: plant-7\nlisteners:\n  - address: 127.0.0.1:0x\n", 3, "write: 127.0.0.1:1883"),
            ("gateway: plant-7\nsessions: { expiry-max: 30 }\n", 2, "write: expiry-max: 30s"),
            ("gateway: [\n", 2, ""),
        ])
    func refusesBadFile(yaml: String, line: Int, advice: String) throws {
        let rig = try Rig()
        let file = try rig.place.write(yaml, to: "bad.yaml")
        let (ending, text) = try rig.command("check", file)
        #expect(ending != .exited(0) && ending != nil)
        #expect(text.contains("\(file):\(line)"), "\(text)")
        #expect(advice.isEmpty || text.contains(advice), "\(text)")
    }

    @Test("check says so when there is no file")
    func refusesMissingFile() throws {
        let (ending, text) = try Rig().command("check", "/nowhere/tidegate.yaml")
        #expect(ending != .exited(0) && ending != nil)
        #expect(text.contains("/nowhere/tidegate.yaml"), "\(text)")
    }

    @Test("run refuses what check refuses")
    func runRefusesBadFile() throws {
        let rig = try Rig()
        let file = try rig.place.write("colour: green\n", to: "bad.yaml")
        let (ending, text) = try rig.command("run", "--config", file, "--state", rig.place.file("state"))
        #expect(ending != .exited(0) && ending != nil)
        #expect(text.contains("\(file):1"), "\(text)")
    }

    @Test("run needs no file, only --listen and --state", .disabled(if: Rig.isVolatile, "no real disk here"))
    func runsWithoutFile() throws {
        let rig = try Rig()
        let port = FreePort.next()
        let child = try ChildProcess(
            Rig.executable, ["run", "--listen", "127.0.0.1:\(port)", "--state", rig.place.file("state")],
            log: rig.place.file("log"))
        let arguments = ["-p", "\(port)", "-t", "t", "-q", "1", "-m", "m"]
        #expect(waitUpTo(15) { publishes(rig, arguments) }, "\(child.log)")
        child.send(SIGINT)
        #expect(child.ended(within: 10) == .exited(0), "SIGINT is as good as SIGTERM: \(child.log)")
    }

    @Test("a graceful stop says 0x8B Server shutting down, and keeps the session")
    func tellsReason() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        try gateway.start()
        var plan = Client.Plan(id: "told", port: gateway.port, version: .v5)
        plan.subscriptions = [("#", 2)]
        let client = Client(plan, ledger: Ledger())
        defer { client.end() }
        try #require(waitUpTo(10) { client.isReady })
        #expect(gateway.stop() == .exited(0), "\(gateway.log.suffix(1000))")
        #expect(
            waitUpTo(5) { client.disconnectReason == 0x8b }, "\(String(describing: client.disconnectReason))")
        try gateway.start()
        #expect(waitUpTo(10) { client.connections == 2 })
        #expect(client.sessionsLost == 0)
    }

    @Test("a port in use is named, and the exit status is not 0")
    func reportsPortInUse() throws {
        let rig = try Rig()
        let first = try rig.gateway()
        try first.start()
        let (ending, text) = try rig.command(
            "run", "--config", first.configurationPath, "--state", rig.place.file("another"))
        #expect(ending != .exited(0) && ending != nil)
        #expect(text.contains("\(first.port)"), "\(text)")
        #expect(first.isRunning)
    }

    @Test("a state directory in use is named, and its holder is not disturbed")
    func reportsLockedState() throws {
        let rig = try Rig()
        let first = try rig.gateway()
        try first.start()
        let (ending, text) = try rig.command(
            "run", "--config", first.configurationPath, "--listen", "127.0.0.1:\(FreePort.next())")
        #expect(ending != .exited(0) && ending != nil)
        #expect(text.contains(first.statePath), "\(text)")
        #expect(first.stop() == .exited(0))
    }

    @Test("after SIGKILL the state directory is free again")
    func freesLockWhenKilled() throws {
        let rig = try Rig()
        let gateway = try rig.gateway()
        for _ in 1...3 {
            try gateway.start()
            gateway.kill()
        }
        try gateway.start()
        #expect(gateway.stop() == .exited(0))
    }

    private func publishes(_ rig: Rig, _ arguments: [String]) -> Bool {
        (try? rig.tool("/usr/bin/mosquitto_pub", arguments).process.ended(within: 5)) == .exited(0)
    }
}
