import SchedulerService
import ServiceStart
import ServingTypes

@main
struct Main {
    static func main() async {
        await run(.scheduler, settings: SchedulerSettings.init, services: SchedulerMain.services)
    }
}
