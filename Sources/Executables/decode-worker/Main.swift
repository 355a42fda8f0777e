import ServiceRuntime
import ServiceStart
import ServingTypes
import WorkerService

@main
struct Main {
    static func main() async {
        await run(
            .decodeWorker,
            settings: { reader throws(SettingsError) in
                try WorkerSettings(&reader, role: .decodeWorker)
            }, services: WorkerMain.services)
    }
}
